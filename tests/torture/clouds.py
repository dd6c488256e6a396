"""Migrations between clouds in memory in which calls fail, one by one and at random.

A clean run counts the calls of each verb and must succeed: it is the twin of
every case of `matrix`. After each fault `resume` ends the migration, and nothing
is left but the new volume. All of it runs within `plain_engine`.
"""

import random
import shutil
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytest

from blockferry.errors import BlockferryError
from blockferry_controller.engine.attempt import PlainEngine
from blockferry_controller.engine.records import State
from blockferry_controller.engine.state import StateStore
from blockferry_controller.events import Event
from blockferry_controller.migration import service
from blockferry_controller.migration.service import Migrations
from blockferry_controller.migration.steps import connect, reach
from blockferry_controller.spec import Endpoint, Kind, Spec
from tests.torture.matrix import HEARD_BY, KINDS, Fault
from tests.torture.tally import Broken, Tally
from tests.torture.world import IN_THREADS, LOSSES, Killed, World

THEATRE: Final = "in memory"
RUNS_MAX: Final = 8


@contextmanager
def plain_engine() -> Iterator[None]:
    """Migrations of this process run without DBOS, and do not wait for memory to change.

    A database of DBOS for each of them would take the time.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(service, "launch_durable", lambda _store, _executor: PlainEngine())
        patch.setattr(connect, "RUNG_SECONDS", 0.2)
        patch.setattr(reach, "LOOK_FIRST_SECONDS", 0.1)
        patch.setattr(reach, "LOOK_EVERY_SECONDS", 0.1)
        yield


@dataclass
class Migrating:
    """Migrations, each between two clouds of its own.

    Attributes:
        directory: Each has its state below it.
        tally: Told of every blow.
    """

    directory: Path
    tally: Tally

    def __post_init__(self) -> None:
        world = World()
        self._play("clean", world)
        self.calls = world.calls

    def cell(self, side: str, verb: str, kind: str, *, late: bool) -> None:
        """One cell of the matrix: its first, middle and last call goes wrong, one at a time."""
        for nth in _first_middle_last(self.calls[side, verb]):
            world = self.case(Fault(side, verb, nth, late, kind))
            if not world.struck:
                # How many messages a stream has is a matter of time: it had fewer than the twin.
                assert verb in IN_THREADS
                world = self.case(Fault(side, verb, world.calls[side, verb], late, kind))
            assert len(world.struck) == 1

    def case(self, fault: Fault) -> World:
        """One fault, then resumes."""
        return self.play(str(fault), [fault])

    def random_round(self, seed: str) -> World:
        """Two to five faults, anywhere."""
        dice = random.Random(seed)
        faults = []
        for _ in range(dice.randint(2, 5)):
            verb = dice.choice(list(KINDS))
            side, kind = dice.choice(HEARD_BY[verb]), dice.choice(KINDS[verb])
            nth = dice.randint(1, 2 * max(1, self.calls[side, verb]))
            faults.append(Fault(side, verb, nth, dice.random() < 0.5, kind))
        return self.play(f"seed {seed!r}", faults)

    def play(self, name: str, faults: list[Fault]) -> World:
        """These faults, then resumes; checked."""
        world = World(faults=list(faults))
        self._play(name, world)
        return world

    def _play(self, name: str, world: World) -> None:
        place = self.directory / str(abs(hash(name)))
        told: list[str] = []
        try:
            attempts = self._drive(place, world, told)
            _check_clean(world, place)
            _check_replaced(world, attempts)
        except Broken as broken:
            what = "".join(f"\n    {line}" for line in [*map(str, world.struck), *told[-8:]])
            raise Broken(f"migrate, {name}: {broken}{what}") from broken
        finally:
            shutil.rmtree(place, ignore_errors=True)
        for fault in world.struck:
            self.tally.blow(THEATRE, f"{fault.kind} at {fault.verb}")
        self.tally.ended(THEATRE, attempts)

    def _drive(self, place: Path, world: World, told: list[str]) -> int:
        def listen(event: Event) -> None:
            told.append(repr(event)[:400])

        with closing(StateStore.open(f"sqlite:///{place}/state.db")) as store:
            spec = Spec(
                Kind.MIGRATE,
                Endpoint("source", world.volume.id),
                Endpoint("destination"),
                controller_address="192.0.2.1",
            )
            own = ""
            for number in range(1, RUNS_MAX + 1):
                migrations = Migrations(store, world.connect, world.dial, listen)
                own = own or migrations.create(spec).id
                before = len(world.struck)
                world.away.clear()
                try:
                    record = migrations.run(own)
                except (BlockferryError, Killed) as error:
                    told.append(f"run {number}: {error!r}")
                    if isinstance(error, BlockferryError) and error.meaning.exit_code == 1:
                        raise Broken(f"a defect showed: {error!r}") from error
                    if len(world.struck) == before:
                        raise Broken(f"failed without a fault: {error!r}") from error
                    continue
                if record.state != State.SUCCEEDED.value:
                    raise Broken(f"ended {record.state}")
                return number
        raise Broken(f"not done after {RUNS_MAX} runs")


def _first_middle_last(times: int) -> list[int]:
    return sorted({1, (times + 1) // 2, times}) if times else []


def _check_clean(world: World, place: Path) -> None:
    left = world.leftovers() + [path.name for path in (place / "authorities").glob("*")]
    if left:
        raise Broken(f"left: {left}")


def _check_replaced(world: World, attempts: int) -> None:
    """The loss of an instance ends no run."""
    if attempts > 1 and [fault.kind in LOSSES for fault in world.struck] == [True]:
        raise Broken("a lost instance was not replaced in the same run")
