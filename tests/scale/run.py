"""Plays one fleet between the two clouds of a world, with as many controllers as are asked for."""

import json
import random
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from blockferry_controller.engine import tables as t
from blockferry_controller.engine.fleet_records import ItemRecord, ItemState
from blockferry_controller.engine.state import StateStore
from tests.cut_line import CutLine, cut_line
from tests.postgres import PostgresServer
from tests.scale.processes import Controllers
from tests.scale.wire import Caller
from tests.scale.world import EAST, WEST, Weather

FLEET = "scale"
ATTEMPTS = 5
AWAY_SECONDS = 45.0
"""How long a process is cut off: longer than a lease."""
_LOOK_SECONDS = 0.5
_UNDER_WAY = 3
"""Migrations whose agents a process has commanded, when it is lost."""


@dataclass(frozen=True)
class Plot:
    """What is to be played.

    Attributes:
        volumes: In the fleet.
        at_once: Volumes that move at a time, and what both quotas have room for.
        removed: Volumes whose owner deletes them once the fleet has begun: they must fail.
        workers: Processes on PostgreSQL; of three one is killed and one is cut off.
        minutes: After which it is given up.
    """

    volumes: int
    at_once: int
    weather: Weather = field(default_factory=Weather)
    removed: int = 3
    workers: int = 1
    minutes: float = 60.0


@dataclass
class Played:
    """What came of it.

    Attributes:
        told: The last words of `blockferry batch`.
        migrations: State by id.
        final_events: Of the history, by the volume's position.
        removed: Names of volumes that were.
        keys_left: Files with keys of migrations.
        taken_over: Seconds until others had what a lost process held, by what was done to it.
        world: World.summary.
    """

    plot: Plot
    database: str
    seconds: float = 0.0
    exit_code: int = -1
    told: str = ""
    peak_bytes: dict[str, int] = field(default_factory=dict)
    cpu_seconds: dict[str, float] = field(default_factory=dict)
    items: list[ItemRecord] = field(default_factory=list)
    migrations: dict[str, str] = field(default_factory=dict)
    final_events: Counter[int] = field(default_factory=Counter)
    removed: frozenset[str] = frozenset()
    keys_left: int = 0
    taken_over: dict[str, float] = field(default_factory=dict)
    world: dict[str, Any] = field(default_factory=dict)


def play(plot: Plot, postgres: PostgresServer | None = None) -> Played:
    """Play it, on SQLite unless a server is given.

    Raises:
        TimeoutError: it was not over in time.
    """
    with ExitStack() as stack:
        # Not pytest's directory: a socket's path has 107 characters.
        name = stack.enter_context(tempfile.TemporaryDirectory(prefix="blockferry-scale-"))
        directory = Path(name)
        patch = stack.enter_context(pytest.MonkeyPatch.context())
        patch.setenv("XDG_STATE_HOME", name)
        patch.setenv("XDG_CONFIG_HOME", name)
        url = postgres.new_database() if postgres else f"sqlite:///{directory}/blockferry/state.db"
        socket = stack.enter_context(_world(directory, plot.weather))
        controllers = stack.enter_context(closing(Controllers(directory, socket)))
        played = Played(plot, url.partition(":")[0])
        game = _Game(plot, played, directory, url, Caller(socket), controllers)
        if plot.workers > 1:
            assert postgres is not None, "SQLite is for one process of the fleet"
            line, place = stack.enter_context(cut_line(postgres.directory))
            game.play(line, url.replace(str(postgres.directory), str(place)))
        else:
            game.play()
        return played


@dataclass
class _Game:
    """One fleet on its way."""

    plot: Plot
    played: Played
    directory: Path
    url: str
    world: Caller
    controllers: Controllers

    def play(self, line: CutLine | None = None, cut_url: str = "") -> None:
        """From the first volume to the last; with a line, one of the others is cut off."""
        self.world("fill", self.plot.volumes, self.plot.at_once)
        begun = time.monotonic()
        self._deadline = begun + self.plot.minutes * 60
        batch = self.controllers.start("batch", self.url, "batch", str(self._fleet()))
        with closing(self._store(batch)) as store:
            self._until(store.crew.taken)
            self._remove(store)
            if line is not None:
                self._lose(store, line, cut_url)
            self._until(lambda: batch.poll() is not None)
            self.played.seconds = time.monotonic() - begun
            self.played.exit_code = batch.returncode
            if line is not None:
                line.mend()
            self.controllers.stop()
            self._read(store)

    def _fleet(self) -> Path:
        document = {
            "fleet": FLEET, "from": EAST, "to": WEST, "select": {"names": "*"},
            "limits": {"concurrency": self.plot.at_once}, "attempts": ATTEMPTS,
            "map": {"metadata": {"set": {"was": "{id}"}}},
            "breaker": {"failures": self.plot.volumes},
        }  # fmt: skip
        path = self.directory / "fleet.yaml"
        path.write_text(json.dumps(document), encoding="utf-8")
        return path

    def _store(self, batch: "subprocess.Popen[bytes]") -> StateStore:
        """The state, once the controller has made it."""
        found: list[StateStore] = []

        def begun() -> bool:
            assert batch.poll() is None, self.controllers.said("batch")
            database = sa.make_url(self.url)
            if database.drivername == "sqlite" and not Path(str(database.database)).exists():
                return False
            store = StateStore.open(self.url)
            if store.fleets.find(FLEET) is None:
                store.close()
                return False
            found.append(store)
            return True

        self._until(begun)
        return found[0]

    def _remove(self, store: StateStore) -> None:
        """The smallest begin last: those of them that wait are still the owner's to delete."""
        waiting = [
            item.name
            for item in store.fleets.items(FLEET)
            if item.state is ItemState.WAITING and not item.begun
        ]
        dice = random.Random(self.plot.weather.seed)
        chosen = dice.sample(waiting[len(waiting) // 2 :], self.plot.removed)
        self.world("remove", chosen)
        self.played.removed = frozenset(chosen)

    def _lose(self, store: StateStore, line: CutLine, cut_url: str) -> None:
        """Workers join; in the middle one is killed, and one is cut off for a while."""
        room = str(self.plot.at_once)
        killed = self.controllers.start("killed", self.url, "worker", "--room", room)
        cut = self.controllers.start("cut off", cut_url, "worker", "--room", room)
        self._until(lambda: {killed.pid, cut.pid} <= set(_holders(store)))
        through = self.plot.volumes // 5
        self._until(lambda: _final(store) >= through)
        # Both are in the middle of something that others will have to go on with.
        pids = killed.pid, cut.pid
        self._until(lambda: min(self.world("driven", pid) for pid in pids) >= _UNDER_WAY)
        killed.kill()
        line.cut()
        cut_at = time.monotonic()
        for name, process in (("killed", killed), ("cut off", cut)):
            self._until(lambda pid=process.pid: pid not in _holders(store))  # type: ignore[misc]
            self.played.taken_over[name] = time.monotonic() - cut_at
        self._until(lambda: time.monotonic() - cut_at > AWAY_SECONDS)
        line.mend()

    def _until(self, condition: Callable[[], object]) -> None:
        while not condition():
            if time.monotonic() > self._deadline:
                raise TimeoutError(
                    f"not over after {self.plot.minutes:g} min: {self.controllers.said('batch')}"
                )
            self.controllers.look()
            time.sleep(_LOOK_SECONDS)

    def _read(self, store: StateStore) -> None:
        played = self.played
        played.told = self.controllers.said("batch")
        played.peak_bytes = self.controllers.peak_bytes
        played.cpu_seconds = self.controllers.cpu_seconds
        played.items = store.fleets.items(FLEET)
        with store.database.connect() as connection:
            columns = t.migrations.c.id, t.migrations.c.state
            played.migrations = {row[0]: row[1] for row in connection.execute(sa.select(*columns))}
            final = ("succeeded", "failed", "cancelled", "skipped")
            events = sa.select(t.history.c.position).where(
                t.history.c.fleet_id == FLEET,
                t.history.c.position.is_not(None),
                t.history.c.event.in_(final),
            )
            played.final_events = Counter(connection.scalars(events))
        played.keys_left = sum(1 for _ in (store.directory / "authorities").glob("*"))
        played.world = self.world("summary")


def _holders(store: StateStore) -> Counter[int]:
    """How many volumes each process has taken, by its pid."""
    return Counter(int(one.holder.split("/")[1]) for one in store.crew.taken() if one.holder)


def _final(store: StateStore) -> int:
    counts = store.fleets.get(FLEET).counts
    return sum(count for state, count in counts.items() if ItemState(state).final)


@contextmanager
def _world(directory: Path, weather: Weather) -> Iterator[Path]:
    """Its process, and the socket it is called by."""
    socket = directory / "world.sock"
    command = [sys.executable, "-m", "tests.scale.world", str(socket), json.dumps(asdict(weather))]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdin is not None
        try:
            if process.stdout.readline().strip() != b"ready":
                raise RuntimeError("the world did not begin")
            yield socket
        finally:
            process.stdin.close()
            process.wait(20)
