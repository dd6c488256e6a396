"""What an attempt ends of, whatever else goes wrong by then."""

from types import SimpleNamespace
from typing import Any

import pytest
from sqlalchemy.exc import OperationalError

from blockferry.errors import BlockferryError, UnreachableError
from blockferry_controller.migration import plan


class Broken:
    """A step that fails of its own."""

    name = "copy"

    def __init__(self, error: Exception) -> None:
        self.error = error
        self.undone = False

    def do(self, context: object) -> str:
        raise self.error

    def undo(self, context: object, *, resumable: bool) -> None:
        self.undone = True


@pytest.mark.parametrize(
    "error", [UnreachableError("AGENT_SILENT", "it is silent"), ZeroDivisionError("a defect")]
)
@pytest.mark.parametrize("away", [False, True])
def test_a_database_that_is_away_does_not_stand_in_for_it(
    error: Exception, away: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    step, asked = Broken(error), list[str]()

    def confirm() -> None:
        asked.append("lease")
        if away and len(asked) > 1:
            raise OperationalError("SELECT", {}, Exception("nobody is there"))

    context: Any = SimpleNamespace(
        migration_id="m-1",
        store=SimpleNamespace(get=lambda _: SimpleNamespace(facts={})),
        progress=SimpleNamespace(committed_bytes=1),
        confirm=confirm,
        fence=lambda: None,
        tell=lambda _: None,
    )
    monkeypatch.setattr(plan, "STEPS", [step])
    with pytest.raises((BlockferryError, ZeroDivisionError)) as caught:
        plan.run(context, lambda _, do: do())
    assert caught.value is error
    # Whose the instances are, nobody can tell then.
    assert step.undone is not away
