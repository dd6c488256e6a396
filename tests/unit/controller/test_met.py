"""Jobs that outlive their controller go on; a run tells what was done since it met them."""

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from blockferry.limits import GIB, MIB
from blockferry_controller.engine.records import State
from blockferry_controller.engine.state import StateStore
from blockferry_controller.migration.service import Migrations
from blockferry_controller.spec import Endpoint, Kind, Spec
from tests.torture.clouds import plain_engine
from tests.torture.matrix import Fault
from tests.torture.world import Killed, World

SPEC = Spec(
    Kind.MIGRATE, Endpoint("source", "data"), Endpoint("destination"),
    controller_address="192.0.2.1",
)  # fmt: skip
RATE = 200 * MIB
"""Bytes per second of the world's link; half of the bytes are zero, which nobody sends."""


@pytest.fixture(autouse=True)
def engine() -> Iterator[None]:
    with plain_engine():
        yield


def resumed_after(place: Path, seconds: float) -> dict[str, Any]:
    """The result of a `resume` so long after its controller has died having started both jobs."""
    world = World(faults=[Fault("source", "start_job", 2, late=True, kind="killed")])
    with closing(StateStore.open(f"sqlite:///{place}/state.db")) as store:
        migrations = Migrations(store, world.connect, world.dial, lambda _: None)
        own = migrations.create(SPEC).id
        with pytest.raises(Killed):
            migrations.run(own)
        world.link.clock.sleep(seconds)
        record = migrations.run(own)
        assert record.state == State.SUCCEEDED.value
        return record.result or {}


def test_jobs_that_are_at_work_are_told_of_from_where_they_are_met(tmp_path: Path) -> None:
    result = resumed_after(tmp_path, 2.0)
    assert 2 * RATE <= result["resumed_from_bytes"] < GIB
    rest = GIB - result["resumed_from_bytes"]
    assert rest // 2 - MIB <= result["sent_bytes"] <= rest // 2 + MIB
    assert result["wire_bytes"] == result["sent_bytes"] // 2


def test_jobs_that_have_ended_leave_nothing_to_send(tmp_path: Path) -> None:
    result = resumed_after(tmp_path, GIB / RATE + 1)
    assert (result["resumed_from_bytes"], result["sent_bytes"]) == (GIB, 0)
    assert (result["committed_bytes"], result["verified"]) == (GIB, True)


def test_what_was_begun_just_now_is_told_of_from_its_beginning(tmp_path: Path) -> None:
    world = World()
    with closing(StateStore.open(f"sqlite:///{tmp_path}/state.db")) as store:
        migrations = Migrations(store, world.connect, world.dial, lambda _: None)
        result = migrations.run(migrations.create(SPEC).id).result or {}
    assert (result["resumed_from_bytes"], result["sent_bytes"]) == (0, GIB // 2)
