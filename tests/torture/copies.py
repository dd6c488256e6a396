"""`blockferry copy` as real processes, of which some die at random moments.

One round is one copy: it is struck once or more, resumed after each blow that ended a
run, and at the end must be byte-equal, with nothing running and nothing left behind.
"""

import contextlib
import os
import random
import shutil
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from blockferry.limits import CHUNK_BYTES, MIB
from tests.layouts import LETTERS, chunk, make_file
from tests.torture import medium, words
from tests.torture.runs import (
    FLIP,
    GENTLE,
    LIMIT,
    PAUSE,
    RUNS_MAX,
    SLOW,
    SLOWEST,
    Blow,
    History,
    Run,
    environment,
    turn,
)
from tests.torture.tally import Broken, Tally

THEATRE: Final = "copy"
AHEAD_BYTES: Final = 64 * MIB
"""What a resumed run may send beside the rest (contract)."""
KINDS: Final = (
    "SIGKILL controller",
    "SIGKILL everything",
    "SIGKILL source agent",
    "SIGKILL sink agent",
    "SIGKILL both agents",
    "SIGSTOP sink agent",
    "SIGINT",
    "SIGTERM",
    PAUSE,
    LIMIT,
    FLIP,
)


@dataclass
class Copies:
    """Rounds of `copy`, each in a directory of its own.

    Attributes:
        directory: Made and removed round by round below it.
        tally: Told of every blow.
        blows_max: Per round.
    """

    directory: Path
    tally: Tally
    blows_max: int = 5
    size_chunks: tuple[int, int] = (24, 64)

    def round(self, seed: str, blows: list[Blow] | None = None) -> None:
        """One copy, struck by `blows`, or by some at random.

        Raises:
            Broken: a promise was not kept; the files stay.
        """
        place = self.directory / seed.replace(" ", "-").replace(":", "-")
        place.mkdir(parents=True)
        try:
            one = _Round(place, seed, self.tally, self.blows_max, self.size_chunks)
            one.blows = one.blows if blows is None else list(blows)
            one.play()
        except Broken as broken:
            raise Broken(f"copy, seed {seed!r}, kept in {place}: {broken}") from broken
        shutil.rmtree(place)


class _Round:
    def __init__(
        self, place: Path, seed: str, tally: Tally, blows_max: int, chunks: tuple[int, int]
    ) -> None:
        self.place, self.tally = place, tally
        self.dice = random.Random(seed)
        self.files = place / "files"
        self.files.mkdir()
        self.layout = "".join(
            self.dice.choices(LETTERS, (3, 5, 1, 2), k=self.dice.randint(*chunks))
        )
        self.tail = self.dice.choice([1, 511, 4096, CHUNK_BYTES])
        self.source = make_file(self.files / "source", self.layout, tail_bytes=self.tail)
        self.size = self.source.stat().st_size
        self.behind = self.dice.choice([None, 0, 3 * MIB + 5])
        self.destination = self.files / "destination"
        if self.behind is not None:
            garbage = self.dice.randbytes(MIB)
            with self.destination.open("wb") as file:
                for _ in range((self.size + self.behind) // MIB + 1):
                    file.write(garbage)
                file.truncate(self.size + self.behind)
            self.kept = self.destination.read_bytes()[self.size :]
        self.blows = [Blow.random(self.dice, KINDS) for _ in range(self.dice.randint(1, blows_max))]
        self.struck: set[str] = set()
        self.flipped: set[int] = set()
        self.history = History(self.size)
        self.environment = environment(place)

    def play(self) -> None:
        arguments = ["copy", str(self.source), str(self.destination), "--limit", self._limit()]
        data = sum(len(chunk(self.layout, at, tail_bytes=self.tail)) for at in self._data(0))
        for number in range(RUNS_MAX):
            blows = turn(self.blows)
            run = Run(arguments, self.place, self.environment, data, blows, self._strike).play()
            self.history.add(run)
            if run.code == 0 and run.document.get("sent_bytes", 0):
                self._check_sent(run)
            if run.document.get("state") == "SUCCEEDED" and "error" not in run.document:
                self._check_end(run.document)
                self.tally.ended(THEATRE, number + 1)
                return
            arguments = ["resume", run.migration_id]
        raise self.history.broken(f"not done after {RUNS_MAX} runs")

    def _limit(self) -> str:
        """As slow as the blows that are to come need it."""
        kinds = {blow.kind for blow in self.blows}
        if FLIP in kinds:
            return SLOWEST
        return SLOW if kinds & set(GENTLE) else "30MiB/s"

    def _data(self, first: int) -> list[int]:
        """Indices of chunks, from one on, that are not zero."""
        return [at for at in range(first, len(self.layout)) if self.layout[at] not in "0-"]

    def _check_sent(self, run: Run) -> None:
        document = run.document
        start = document["resumed_from_bytes"] // CHUNK_BYTES
        rest = sum(len(chunk(self.layout, at, tail_bytes=self.tail)) for at in self._data(start))
        rest += document["repaired_bytes"]
        # Nothing is sent twice over a connection that holds, paused or not.
        ahead = 0 if run.left_alone and not run.reconnects else AHEAD_BYTES
        if document["sent_bytes"] > rest + ahead:
            raise self.history.broken(f"sent {document['sent_bytes']} where {rest} were left")

    def _check_end(self, document: dict[str, Any]) -> None:
        with self.source.open("rb") as one, self.destination.open("rb") as other:
            for offset in range(0, self.size, MIB):
                wanted = one.read(MIB)
                if other.read(len(wanted)) != wanted:
                    raise self.history.broken(f"bytes differ in the MiB at {offset}")
            if (other.read() or b"") != (self.kept if self.behind else b""):
                raise self.history.broken("what lies behind the copy was changed")
        if not document["verified"]:
            raise self.history.broken("not verified")
        repaired = medium.chunks_of(document["repaired_ranges"])
        if repaired != self.flipped:
            raise self.history.broken(f"chunks {self.flipped} were spoiled, {repaired} repaired")
        left = sorted(path.name for path in self.files.iterdir())
        if left != ["destination", "source"]:
            raise self.history.broken(f"left beside the files: {left}")
        state = self.place / "state"
        forgotten = [
            str(path.relative_to(state))
            for name in ("local", "authorities")
            for path in (state / name).rglob("*")
        ]
        if forgotten:
            raise self.history.broken(f"left in the state directory: {forgotten}")
        if processes := self._processes(""):
            raise self.history.broken(f"still running: {processes}")

    def _strike(self, run: Run, blow: Blow) -> bool:
        """Do it; False when there was nobody to hit any more."""
        if not run.alive:
            return False
        struck = self._strike_gently(run, blow) if blow.is_gentle else self._kill(run, blow)
        if struck:
            self.struck.add(blow.kind)
            self.tally.blow(THEATRE, blow.kind)
        return struck

    def _strike_gently(self, run: Run, blow: Blow) -> bool:
        if blow.kind == FLIP:
            return self._flip(run)
        return words.say(blow.kind, run, self.environment, self.dice)

    def _flip(self, run: Run) -> bool:
        pids = self._processes("destination-server")
        if not pids or LIMIT in self.struck:
            return False
        with self._frozen(pids):
            instance = self.place / "state" / "local" / run.migration_id / "destination-server"
            committed = medium.committed_bytes(instance)
            if not 0 < committed <= self.size // 2:
                return False
            if medium.was_repaired(self.environment, run.migration_id):
                return False
            self.flipped.add(medium.flip(self.destination, committed, self.dice))
            return True

    def _kill(self, run: Run, blow: Blow) -> bool:
        victims = {
            "SIGKILL source agent": ["source-server"],
            "SIGKILL sink agent": ["destination-server"],
            "SIGSTOP sink agent": ["destination-server"],
            "SIGKILL both agents": ["source-server", "destination-server"],
            "SIGKILL everything": ["source-server", "destination-server"],
        }
        pids = [pid for name in victims.get(blow.kind, []) for pid in self._processes(name)]
        number = {"SIGINT": signal.SIGINT, "SIGTERM": signal.SIGTERM}.get(blow.kind, signal.SIGKILL)
        if blow.kind.endswith(("controller", "everything")) or blow.kind not in victims:
            pids.insert(0, run.process.pid)
        if not pids:
            return False
        if blow.kind == "SIGSTOP sink agent":
            with self._frozen(pids):
                time.sleep(self.dice.uniform(0.2, 1.5))
        else:
            _signal(pids, number)
        return True

    @contextmanager
    def _frozen(self, pids: list[int]) -> Iterator[None]:
        _signal(pids, signal.SIGSTOP)
        try:
            yield
        finally:
            _signal(pids, signal.SIGCONT)

    def _processes(self, name: str) -> list[int]:
        """Pids of agents of this round, by the name of their instance."""
        needle, found = f"{self.place}/state/local/", []
        for path in Path("/proc").glob("[0-9]*/cwd"):
            with contextlib.suppress(OSError):
                directory = str(path.readlink())
                if directory.startswith(needle) and name in directory:
                    found.append(int(path.parent.name))
        return found


def _signal(pids: list[int], number: signal.Signals) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)
