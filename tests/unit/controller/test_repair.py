"""What is told of a repair that was struck and begun again."""

from types import SimpleNamespace
from typing import Any

import pytest

from blockferry.errors import IntegrityError
from blockferry_controller.migration.steps import repair as step

MIB = 1 << 20


class _Context(SimpleNamespace):
    def fact(self, name: str) -> Any:
        return self.facts.get(name)

    def remember(self, **facts: Any) -> None:
        self.facts.update(facts)

    def note(self, message: str, *, level: str) -> None:
        self.notes.append(message)


def context(*differing: tuple[int, int], facts: Any = None) -> Any:
    return _Context(differing=differing, facts=facts or {}, notes=[])


def test_one_that_was_struck_and_the_next_are_told_of_together(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sent: list[Any] = []
    ends = iter([KeyboardInterrupt, None])

    def watch_jobs(*_: Any, only: Any, **__: Any) -> None:
        sent.append(only)
        if (blow := next(ends)) is not None:
            raise blow

    monkeypatch.setattr(step, "watch_jobs", watch_jobs)
    struck = context((2 * MIB, 3 * MIB), (7 * MIB, 8 * MIB))
    with pytest.raises(KeyboardInterrupt):
        step.repair(struck)

    # The first of both had been sent again by then, and is not found any more.
    resumed = context((7 * MIB, 8 * MIB), facts=struck.facts)
    step.repair(resumed)

    assert sent[-1] == ((7 * MIB, 8 * MIB),)
    found = step.repaired(resumed.facts)
    assert found["repaired_ranges"] == [[2 * MIB, 3 * MIB], [7 * MIB, 8 * MIB]]
    assert found["repaired_bytes"] == 2 * MIB
    with pytest.raises(IntegrityError):
        step.repair(context((0, MIB), facts=resumed.facts))
