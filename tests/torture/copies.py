"""`blockferry copy` as real processes, of which some die at random moments.

One round is one copy: it is struck once or more, resumed after each blow, and
at the end must be byte-equal, with nothing running and nothing left behind.
"""

import contextlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from blockferry.limits import CHUNK_BYTES, MIB
from tests.layouts import LETTERS, chunk, make_file
from tests.torture.tally import Broken, Tally

THEATRE: Final = "copy"
STEPS: Final = (
    *("preflight", "authority", "volume", "instances", "attach", "reach", "probe"),
    *("copy", "proof", "detach", "delete", "hand over"),
)
AHEAD_BYTES: Final = 64 * MIB
"""What a resumed run may send beside the rest (contract)."""
RUNS_MAX: Final = 12
RUN_SECONDS: Final = 120.0


@dataclass(frozen=True)
class Blow:
    """What is done, and when.

    Attributes:
        kind: See `KINDS`.
        step: Which step must have begun.
        share: Of the bytes, which must be committed; of `copy` only.
        delay: Seconds after that.
    """

    kind: str
    step: str
    share: float
    delay: float

    def __str__(self) -> str:
        when = f"at {self.share:.0%}" if self.step == "copy" else f"in {self.step}"
        return f"{self.kind} {when} + {self.delay:.2f} s"

    @classmethod
    def random(cls, dice: random.Random) -> "Blow":
        """Half of them hit the copy itself."""
        step = dice.choice([*STEPS, *["copy"] * len(STEPS)])
        return cls(dice.choice(KINDS), step, dice.uniform(0, 0.95), dice.uniform(0, 0.3))

    def is_due(self, event: dict[str, Any], size_bytes: int) -> bool:
        """Whether `event` is what it waits for."""
        kind = event.get("event")
        if self.step == "copy":
            return kind == "progress" and event["committed_bytes"] >= self.share * size_bytes
        return bool(kind == "step_started" and event["step"] == self.step)


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
class Run:
    """One process of `blockferry`, and what it has told so far."""

    process: "subprocess.Popen[str]"
    size_bytes: int
    blow: Blow | None
    strike: Callable[["Run", Blow], bool]
    committed_bytes: int = 0
    struck: bool = False
    said: list[str] = field(default_factory=list)
    stdout: str = ""

    def finish(self) -> dict[str, Any]:
        """Read to the end, striking on the way; the result document, if there is one."""
        out = threading.Thread(target=self._read_stdout)
        out.start()
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.said.append(line)
            self._hear(json.loads(line) if line.startswith("{") else {})
        out.join()
        self.process.wait(RUN_SECONDS)
        try:
            document: dict[str, Any] = json.loads(self.stdout)
        except ValueError:
            return {}
        return document

    def _read_stdout(self) -> None:
        assert self.process.stdout is not None
        self.stdout = self.process.stdout.read()

    def _hear(self, event: dict[str, Any]) -> None:
        self.committed_bytes = max(self.committed_bytes, event.get("committed_bytes", 0))
        if self.blow is None or self.struck or not self.blow.is_due(event, self.size_bytes):
            return
        time.sleep(self.blow.delay)
        self.struck = self.strike(self, self.blow)


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
    blows_max: int = 3
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
        self.blows = [Blow.random(self.dice) for _ in range(self.dice.randint(1, blows_max))]
        self.history: list[str] = []
        self.committed = 0
        kept = {name: text for name, text in os.environ.items() if "BLOCKFERRY" not in name}
        self.environment = {
            **kept,
            "BLOCKFERRY_STATE": f"sqlite:///{place}/state/state.db",
            "XDG_CONFIG_HOME": str(place),
        }

    def play(self) -> None:
        first = ["copy", str(self.source), str(self.destination), "--limit", "30MiB/s"]
        arguments, document = first, dict[str, Any]()
        for number in range(RUNS_MAX):
            blow = self.blows[number] if number < len(self.blows) else None
            document = self._run(arguments, blow)
            if document.get("state") == "SUCCEEDED" and "error" not in document:
                self._check_end(document)
                self.tally.ended(THEATRE, number + 1)
                return
            known = self._ask("list")
            arguments = ["resume", known[0]["id"]] if known else first
        raise Broken(f"not done after {RUNS_MAX} runs{self._told()}")

    def _run(self, arguments: list[str], blow: Blow | None) -> dict[str, Any]:
        process = subprocess.Popen(
            [sys.executable, "-m", "blockferry_controller", *arguments, "-o", "json"],
            cwd=self.place, env=self.environment, text=True, start_new_session=True,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip
        # What never ends is ended here, and shows as such.
        guard = threading.Timer(RUN_SECONDS, process.kill)
        guard.start()
        run = Run(process, self.size, blow, self._strike)
        with process:
            try:
                document = run.finish()
            finally:
                guard.cancel()
        code = process.returncode
        self.history.append(f"{arguments[0]}: {blow if run.struck else 'left alone'} -> {code}")
        self.history += [f"    {line.rstrip()[:300]}" for line in run.said[-6:]]
        self._check_run(run, document, code)
        self.committed = max(self.committed, run.committed_bytes)
        return document

    def _check_run(self, run: Run, document: dict[str, Any], code: int) -> None:
        if any("Traceback" in line for line in run.said) or code == 1:
            raise Broken(f"a defect showed{self._told()}{''.join(run.said)[-3000:]}")
        if not run.struck and code != 0:
            raise Broken(f"a run that was left alone failed with {code}{self._told()}")
        if code == 0 and document.get("sent_bytes", 0):
            self._check_sent(document)
        resumed = document.get("resumed_from_bytes", 0)
        if code == 0 and 0 < self.committed < self.size and resumed < self.committed:
            raise Broken(f"went on from {resumed}, {self.committed} was told{self._told()}")

    def _check_sent(self, document: dict[str, Any]) -> None:
        start = document["resumed_from_bytes"] // CHUNK_BYTES
        rest = sum(
            len(chunk(self.layout, index, tail_bytes=self.tail))
            for index in range(start, len(self.layout))
            if self.layout[index] not in "0-"
        )
        if document["sent_bytes"] > rest + AHEAD_BYTES:
            raise Broken(f"sent {document['sent_bytes']} where {rest} were left{self._told()}")

    def _check_end(self, document: dict[str, Any]) -> None:
        with self.source.open("rb") as one, self.destination.open("rb") as other:
            for offset in range(0, self.size, MIB):
                wanted = one.read(MIB)
                if other.read(len(wanted)) != wanted:
                    raise Broken(f"bytes differ in the MiB at {offset}{self._told()}")
            if (other.read() or b"") != (self.kept if self.behind else b""):
                raise Broken(f"what lies behind the copy was changed{self._told()}")
        if not document["verified"]:
            raise Broken(f"not verified{self._told()}")
        left = sorted(path.name for path in self.files.iterdir())
        if left != ["destination", "source"]:
            raise Broken(f"left beside the files: {left}{self._told()}")
        state = self.place / "state"
        forgotten = [
            str(path.relative_to(state))
            for name in ("local", "authorities")
            for path in (state / name).rglob("*")
        ]
        if forgotten:
            raise Broken(f"left in the state directory: {forgotten}{self._told()}")
        if processes := self._processes(""):
            raise Broken(f"still running: {processes}{self._told()}")

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
        if run.process.poll() is not None or not pids:
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

    def _ask(self, *arguments: str) -> list[dict[str, Any]]:
        done = subprocess.run(
            [sys.executable, "-m", "blockferry_controller", *arguments, "-o", "json"],
            cwd=self.place, env=self.environment, capture_output=True, text=True, check=False,
            timeout=60,
        )  # fmt: skip
        if done.returncode != 0:
            raise Broken(f"{arguments} failed: {done.stderr}{self._told()}")
        listed: list[dict[str, Any]] = json.loads(done.stdout)
        return listed

    def _told(self) -> str:
        return "\n  " + "\n  ".join(self.history) + "\n"
