"""Somebody deletes what a migration stands on, just before each of its steps.

In memory, with fakes that hold to the contract suites. Whatever it was, the error
is ours and says so, `resume` ends it where that can be, and nothing is left.
"""

from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from blockferry.errors import BlockferryError, PreconditionError
from blockferry_controller.clouds.port import MIGRATION_KEY
from blockferry_controller.engine.records import State
from blockferry_controller.engine.state import StateStore
from blockferry_controller.events import Event, StepStarted
from blockferry_controller.migration.service import Migrations
from blockferry_controller.migration.steps import STEPS, probe
from blockferry_controller.spec import Endpoint, Kind, Spec
from tests.torture.clouds import plain_engine
from tests.torture.world import SIDES, Killed, World

RUNS_MAX = 2
NAMES = [step.name for step in STEPS]


@pytest.fixture(autouse=True)
def no_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """A device that is not there is waited for in real time."""
    monkeypatch.setattr(probe, "DEVICE_SECONDS", 0.2)


def delete(world: World, side: str, kind: str) -> bool:
    """Delete one resource of that kind; False when there is none."""
    cloud = world.clouds[side]
    if kind == "server":
        found = list(cloud.servers)
        for server_id in found:
            cloud.delete_server(server_id)
        return bool(found)
    if kind == "volume":
        own = [one.id for one in cloud.volumes.values() if MIGRATION_KEY in one.metadata]
        for volume_id in own:
            del cloud.volumes[volume_id]
        return bool(own)
    where: dict[str, Any] = {"port": cloud.ports, "group": cloud.groups}[kind]  # type: ignore[assignment]
    there = bool(where)
    where.clear()
    return there


def drive(
    world: World, directory: Path, listen: Callable[[Event], None]
) -> tuple[str, list[BlockferryError]]:
    """Run and resume; how it ended, and the errors on the way."""
    errors: list[BlockferryError] = []
    spec = Spec(
        Kind.MIGRATE,
        Endpoint("source", world.volume.id),
        Endpoint("destination"),
        controller_address="192.0.2.1",
    )
    with plain_engine(), closing(StateStore.open(f"sqlite:///{directory}/state.db")) as store:
        migrations = Migrations(store, world.connect, world.dial, listen)
        own = migrations.create(spec).id
        for _ in range(RUNS_MAX):
            try:
                return migrations.run(own).state, errors
            except BlockferryError as error:
                errors.append(error)
            except Killed:
                continue
        migrations.cancel(own)
        return store.get(own).state, errors


def strike(step: str, blow: Callable[[], bool], struck: list[bool]) -> Callable[[Event], None]:
    """A listener that strikes once, before that step."""

    def listen(event: Event) -> None:
        if isinstance(event, StepStarted) and event.step == step and not struck:
            struck.append(blow())

    return listen


@pytest.mark.parametrize("step", NAMES)
@pytest.mark.parametrize(
    ("side", "kind"),
    [
        *((side, kind) for side in SIDES for kind in ("server", "port", "group")),
        ("destination", "volume"),
    ],
)
def test_the_migration_gets_there_all_the_same(
    tmp_path: Path, side: str, kind: str, step: str
) -> None:
    world, struck = World(), list[bool]()
    state, errors = drive(world, tmp_path, strike(step, lambda: delete(world, side, kind), struck))
    assert struck
    assert all(error.meaning.exit_code != 1 for error in errors), errors
    if (kind, step) == ("volume", "hand over"):
        # Proven, and gone before it was handed over: nothing is left to go on with.
        assert {error.reason for error in errors} == {"VOLUME_NOT_FOUND"}
        assert not [one for cloud in world.clouds.values() for one in cloud.find_resources()]
        return
    assert state == State.SUCCEEDED.value, errors
    assert world.leftovers() == []


@pytest.mark.parametrize("step", NAMES)
def test_without_its_source_a_migration_ends_and_leaves_nothing(tmp_path: Path, step: str) -> None:
    world, struck = World(), list[bool]()
    source = world.clouds["source"].volumes
    state, errors = drive(
        world,
        tmp_path,
        strike(step, lambda: source.pop(world.volume.id, None) is not None, struck),
    )
    assert struck == [True]
    done = state == State.SUCCEEDED.value
    assert done == (NAMES.index(step) > NAMES.index("copy"))
    told = {error.reason for error in errors}
    assert done or told <= {"VOLUME_NOT_FOUND", "DEVICE_NOT_FOUND", "DEVICE_MISSING"}
    assert not [one for cloud in world.clouds.values() for one in cloud.find_resources()]


# What gets stuck in an instance goes with it.


def quiet(_: Event) -> None:
    """Nobody listens."""


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("reason", ["ATTACH_FAILED", "ATTACHMENT_HALF"])
def test_an_instance_that_cannot_attach_gives_way_to_another(
    tmp_path: Path, side: str, reason: str
) -> None:
    world = World()
    world.clouds[side].fail("attach_volume", PreconditionError(reason, "stuck."))
    state, errors = drive(world, tmp_path, quiet)
    assert (state, errors) == (State.SUCCEEDED.value, [])
    assert world.calls[side, "ensure_server"] == 2
    assert world.leftovers() == []


@pytest.mark.parametrize("side", SIDES)
def test_a_volume_that_cannot_be_detached_is_free_when_the_instance_is_gone(
    tmp_path: Path, side: str
) -> None:
    world = World()
    world.clouds[side].fail("detach_volume", PreconditionError("VOLUME_STATE", "detaching."))
    state, errors = drive(world, tmp_path, quiet)
    assert (state, errors) == (State.SUCCEEDED.value, [])
    assert world.leftovers() == []


@pytest.mark.parametrize("side", SIDES)
def test_what_a_lost_instance_held_is_taken_back(tmp_path: Path, side: str) -> None:
    """Its attachment may be all that is left of it: the next controller asks by its id."""
    world, lost, struck = World(), list[str](), list[bool]()
    cloud = world.clouds[side]

    def listen(event: Event) -> None:
        if isinstance(event, StepStarted) and event.step == "probe" and not struck:
            struck.append(True)
            lost.extend(cloud.servers)
            world.lose(side)
            raise Killed

    state, errors = drive(world, tmp_path, listen)
    assert (state, errors) == (State.SUCCEEDED.value, [])
    taken_back = [call for call in cloud.calls if call[:2] == ("detach_volume", lost[0])]
    assert taken_back
    assert world.leftovers() == []
