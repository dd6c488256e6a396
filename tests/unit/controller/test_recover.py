"""What is lost on the way is replaced; what is a defect of ours ends the attempt."""

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from blockferry.errors import InternalError, PreconditionError
from blockferry.identity import Role
from blockferry_controller.engine.records import MigrationRecord, State
from blockferry_controller.engine.state import StateStore
from blockferry_controller.migration import plan
from blockferry_controller.migration.context import Context, need
from blockferry_controller.migration.service import Migrations
from blockferry_controller.migration.steps import STEPS
from blockferry_controller.migration.steps.pair import WATCH_SECONDS
from blockferry_controller.spec import Endpoint, Kind, Spec
from tests.fakes.cloud import MemoryServer
from tests.torture.clouds import plain_engine
from tests.torture.world import SIDES, World

NO_DISK = "Linux version 6\nALERT!  /dev/vda1 does not exist.  Dropping to a shell!\n"
SPEC = Spec(
    Kind.MIGRATE,
    Endpoint("source", "data"),
    Endpoint("destination"),
    controller_address="192.0.2.1",
)


class Hosts:
    """What the servers of a world are built on: the first of a side fail to boot."""

    def __init__(self, world: World, failures: dict[str, int]) -> None:
        self.boots: Counter[str] = Counter()
        self._world, self._failures = world, failures
        for side, cloud in world.clouds.items():
            cloud.on_boot = partial(self._boot, side, cloud.on_boot)

    def _boot(self, side: str, boot: Callable[[MemoryServer], None], server: MemoryServer) -> None:
        self.boots[side] += 1
        if self.boots[side] <= self._failures.get(side, 0):
            self._world.clouds[side].consoles[server.server.id] = NO_DISK
        else:
            boot(server)


@pytest.fixture(autouse=True)
def engine() -> Iterator[None]:
    with plain_engine():
        yield


def run(world: World, place: Path) -> MigrationRecord:
    with closing(StateStore.open(f"sqlite:///{place}/state.db")) as store:
        migrations = Migrations(store, world.connect, world.dial, lambda _: None)
        return migrations.run(migrations.create(SPEC).id)


@pytest.mark.parametrize("failing", [["source"], ["destination"], list(SIDES)], ids=str)
def test_another_instance_is_taken_in_the_same_run(failing: list[str], tmp_path: Path) -> None:
    world = World()
    hosts = Hosts(world, dict.fromkeys(failing, 1))
    assert run(world, tmp_path).state == State.SUCCEEDED.value
    assert hosts.boots == {side: 2 if side in failing else 1 for side in SIDES}
    assert world.leftovers() == []


def test_an_image_that_boots_on_no_host_is_told_after_the_second(tmp_path: Path) -> None:
    world = World()
    hosts = Hosts(world, {"source": 99})
    with pytest.raises(PreconditionError, match=r"/dev/vda1 does not exist.*--image") as caught:
        run(world, tmp_path)
    assert caught.value.reason == "BOOT_FAILED"
    assert hosts.boots["source"] == 2
    assert not world.clouds["source"].servers


class _Cut:
    """A step in whose last moment an agent is lost, as the end of a watch finds it."""

    name = "cut"

    def __init__(self, role: Role) -> None:
        self._role = role

    def do(self, context: Context) -> str:
        side = context.source if self._role is Role.SOURCE else context.destination
        need(side.agent).close()
        side.agent = None
        return ""

    def undo(self, context: Context, *, resumable: bool) -> None:
        """Nothing was made."""


@pytest.mark.parametrize("role", [Role.SOURCE, Role.SINK])
@pytest.mark.parametrize("before", ["connect", "probe", "copy", "proof"])
def test_who_was_lost_as_a_step_ended_is_brought_back_for_the_next(
    role: Role, before: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    at = [step.name for step in STEPS].index(before)
    monkeypatch.setattr(plan, "STEPS", (*STEPS[:at], _Cut(role), *STEPS[at:]))
    world = World()
    assert run(world, tmp_path).state == State.SUCCEEDED.value
    assert world.leftovers() == []


class _Defective:
    """An agent's connection whose client has a defect in the stream that a copy is watched by."""

    def __init__(self, agent: Any) -> None:
        self._agent = agent

    def __getattr__(self, verb: str) -> Any:
        return getattr(self._agent, verb)

    def watch_job(self, job_id: str, interval_seconds: float) -> Any:
        if interval_seconds == WATCH_SECONDS:
            raise RuntimeError("dictionary changed size during iteration")
        return self._agent.watch_job(job_id, interval_seconds)


def test_a_defect_in_a_thread_is_told_and_not_waited_for(tmp_path: Path) -> None:
    world = World()

    def dial(*arguments: Any, **named: Any) -> Any:
        return _Defective(world.dial(*arguments, **named))

    with closing(StateStore.open(f"sqlite:///{tmp_path}/state.db")) as store:
        migrations = Migrations(store, world.connect, dial, lambda _: None)
        with pytest.raises(InternalError, match="dictionary changed size"):
            migrations.run(migrations.create(SPEC).id)
