"""What a controller that has lost its migration takes back: nothing."""

import pytest

from blockferry.errors import BusyError
from blockferry.limits import GIB
from blockferry_controller.clouds.port import ResourceKind
from blockferry_controller.engine.state import StateStore
from blockferry_controller.migration.context import LEASE_LOST, need
from blockferry_controller.migration.plan import undo
from blockferry_controller.migration.preflight.instances import place
from blockferry_controller.migration.preflight.network import join_network
from blockferry_controller.migration.steps.instances import make_port
from tests.unit.controller.preflight.stage import Stage


@pytest.mark.parametrize("when", ["before", "between two steps"])
def test_what_another_controller_has_taken_over_is_not_undone(
    store: StateStore, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    stage = Stage(store)
    stage.east.add_volume("data", GIB)
    context = stage.context()
    for side in context.sides:
        place(side)
        join_network(side)
        make_port(context, side)
    asked = 0

    def lapsed() -> bool:
        nonlocal asked
        asked += 1
        return asked > (0 if when == "before" else 2)

    context.lapsed = lapsed
    with pytest.raises(BusyError) as caught:
        undo(context, resumable=False)
    assert caught.value.reason == LEASE_LOST
    assert need(context.source.port).id in stage.east.ports
    kinds = [one.kind for one in stage.west.find_resources("m-1")]
    assert ResourceKind.PORT in kinds
