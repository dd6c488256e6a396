"""`blockferry copy` as real processes, of which some die at random moments.

One round is one copy: it is struck once or more, resumed after each blow, and
at the end must be byte-equal, with nothing running and nothing left behind.
"""

import contextlib
import os
import random
import shutil
import signal
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from blockferry.limits import CHUNK_BYTES, MIB
from tests.layouts import LETTERS, chunk, make_file
from tests.torture.runs import RUNS_MAX, Blow, History, Run, environment
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
            one.blows = one.blows if blows is None else blows
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
        self.history = History(self.size)
        self.environment = environment(place)

    def play(self) -> None:
        arguments = ["copy", str(self.source), str(self.destination), "--limit", "30MiB/s"]
        data = sum(len(chunk(self.layout, at, tail_bytes=self.tail)) for at in self._data(0))
        for number in range(RUNS_MAX):
            blow = self.blows[number] if number < len(self.blows) else None
            run = Run(arguments, self.place, self.environment, data, blow, self._strike).play()
            self.history.add(run)
            if run.code == 0 and run.document.get("sent_bytes", 0):
                self._check_sent(run.document)
            if run.document.get("state") == "SUCCEEDED" and "error" not in run.document:
                self._check_end(run.document)
                self.tally.ended(THEATRE, number + 1)
                return
            arguments = ["resume", run.migration_id]
        raise self.history.broken(f"not done after {RUNS_MAX} runs")

    def _data(self, first: int) -> list[int]:
        """Indices of chunks, from one on, that are not zero."""
        return [at for at in range(first, len(self.layout)) if self.layout[at] not in "0-"]

    def _check_sent(self, document: dict[str, Any]) -> None:
        start = document["resumed_from_bytes"] // CHUNK_BYTES
        rest = sum(len(chunk(self.layout, at, tail_bytes=self.tail)) for at in self._data(start))
        if document["sent_bytes"] > rest + AHEAD_BYTES:
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
        if not run.alive or not pids:
            return False
        if blow.kind == "SIGSTOP sink agent":
            self._freeze(pids)
        else:
            for pid in pids:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, number)
        self.tally.blow(THEATRE, blow.kind)
        return True

    def _freeze(self, pids: list[int]) -> None:
        for number in (signal.SIGSTOP, signal.SIGCONT):
            for pid in pids:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, number)
            time.sleep(self.dice.uniform(0.2, 1.5) if number == signal.SIGSTOP else 0)

    def _processes(self, name: str) -> list[int]:
        """Pids of agents of this round, by the name of their instance."""
        needle, found = f"{self.place}/state/local/".encode(), []
        for path in Path("/proc").glob("[0-9]*/cmdline"):
            with contextlib.suppress(OSError):
                line = path.read_bytes()
                if needle in line and name.encode() in line:
                    found.append(int(path.parent.name))
        return found
