"""`blockferry` as a process that is struck at a moment of its own telling."""

import json
import os
import random
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from tests.torture.tally import Broken

STEPS: Final = (
    *("preflight", "authority", "volume", "instances", "attach", "reach", "connect", "probe"),
    *("copy", "proof", "detach", "delete", "compare", "hand over"),
)
PAUSE: Final = "paused and resumed by another"
LIMIT: Final = "another limit set by another"
FLIP: Final = "bit flipped on the medium"
GENTLE: Final = {PAUSE: 0.7, LIMIT: 0.7, FLIP: 0.25}
"""Blows that end no run -> the largest share of the bytes at which they come: later,
nothing moves any more when they arrive."""
SLOW: Final = "4MiB/s"
"""The limit of copies that are to last until a word has its effect: a second or two."""
SLOWEST: Final = "2MiB/s"
"""Of those that are to be met in their first half."""
RUNS_MAX: Final = 12
SILENT_SECONDS: Final = 240.0
"""A run that tells nothing for so long never ends; an agent that is silent is given 60."""


@dataclass(frozen=True)
class Blow:
    """What is done, and when.

    Attributes:
        kind: The theatre's own name for it.
        step: Which step must have begun.
        share: Of the bytes, which must be committed; of `copy` only.
        delay: Seconds after that.
    """

    kind: str
    step: str
    share: float
    delay: float

    @property
    def is_gentle(self) -> bool:
        """Whether the run that it hits must end well by itself."""
        return self.kind in GENTLE

    def __str__(self) -> str:
        when = f"at {self.share:.0%}" if self.step == "copy" else f"in {self.step}"
        return f"{self.kind} {when} + {self.delay:.2f} s"

    @classmethod
    def random(cls, dice: random.Random, kinds: tuple[str, ...]) -> "Blow":
        """Half of them hit the copy itself; gentle ones always, since they need bytes that move."""
        kind = dice.choice(kinds)
        if kind in GENTLE:
            return cls(kind, "copy", dice.uniform(0.02, GENTLE[kind]), 0.0)
        step = dice.choice([*STEPS, *["copy"] * len(STEPS)])
        return cls(kind, step, dice.uniform(0, 0.95), dice.uniform(0, 0.3))

    def is_due(self, event: dict[str, Any], data_bytes: int) -> bool:
        """Whether `event` is what it waits for."""
        kind = event.get("event")
        if self.step == "copy":
            return kind == "progress" and event["data_bytes"] >= self.share * data_bytes
        return bool(kind == "step_started" and event["step"] == self.step)


@dataclass
class Run:
    """One process of `blockferry`, and what it has told so far.

    Attributes:
        data_bytes: That are to cross, of which a blow waits for a share.
        blows: Yet to come, in this order; see `turn`.
        strike: Does one; False when there was nothing to hit any more.
        committed_bytes: The highest commit point told.
        reconnects: As told last.
        struck: Those that did happen.
        migration_id: As told; empty before.
    """

    arguments: list[str]
    place: Path
    environment: Mapping[str, str]
    data_bytes: int
    blows: list[Blow]
    strike: Callable[["Run", Blow], bool]
    committed_bytes: int = 0
    reconnects: int = 0
    struck: list[Blow] = field(default_factory=list)
    migration_id: str = ""
    said: list[str] = field(default_factory=list)
    document: dict[str, Any] = field(default_factory=dict)
    code: int = 0
    process: "subprocess.Popen[str]" = field(init=False)

    def play(self) -> "Run":
        """Run to the end, striking on the way."""
        with start(self.arguments, self.place, self.environment) as self.process:
            out: list[str] = []
            assert self.process.stdout is not None
            reader = threading.Thread(target=lambda: out.append(self._stdout()))
            reader.start()
            try:
                self._listen()
            except Broken:
                self.process.kill()
                raise
            finally:
                reader.join()
        self.code = self.process.returncode
        try:
            self.document = json.loads(out[0])
        except ValueError:
            self.document = {}
        return self

    @property
    def left_alone(self) -> bool:
        """Whether nothing hit it that may end it."""
        return all(blow.is_gentle for blow in self.struck)

    @property
    def alive(self) -> bool:
        """Whether there is a process to hit."""
        return self.process.poll() is None

    def _stdout(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.read()

    def _listen(self) -> None:
        assert self.process.stderr is not None
        heard_at, over = [time.monotonic()], threading.Event()

        def end_what_never_ends() -> None:
            while not over.wait(1.0):
                if time.monotonic() - heard_at[0] > SILENT_SECONDS:
                    self.said.append(f"killed: silent for {SILENT_SECONDS:.0f} s")
                    self.process.kill()
                    return

        guard = threading.Thread(target=end_what_never_ends, daemon=True)
        guard.start()
        for line in self.process.stderr:
            heard_at[0] = time.monotonic()
            self.said.append(line)
            self._hear(json.loads(line) if line.startswith("{") else {})
        over.set()
        guard.join()

    def _hear(self, event: dict[str, Any]) -> None:
        self.migration_id = event.get("migration_id", self.migration_id)
        self.committed_bytes = max(self.committed_bytes, event.get("committed_bytes", 0))
        self.reconnects = event.get("reconnects", self.reconnects)
        if not self.blows or not self.blows[0].is_due(event, self.data_bytes):
            return
        blow = self.blows[0]
        time.sleep(blow.delay)
        if hit := self.strike(self, blow):
            self.struck.append(blow)
        # One that comes too late to be felt is not to keep the next away.
        if hit or blow.is_gentle:
            self.blows.pop(0)


@dataclass
class History:
    """The runs of one round, checked one by one.

    Attributes:
        lines: For whoever has to find out what broke.
    """

    size_bytes: int
    committed_bytes: int = 0
    lines: list[str] = field(default_factory=list)

    def add(self, run: Run) -> None:
        """Take down a run that has ended.

        Raises:
            Broken: a defect showed, it failed by itself, or it went on from too early.
        """
        struck = ", ".join(map(str, run.struck)) or "left alone"
        self.lines.append(f"{run.arguments[0]}: {struck} -> {run.code}")
        self.lines += [f"    {line.rstrip()[:300]}" for line in run.said[-6:]]
        if any("Traceback" in line for line in run.said) or run.code == 1:
            raise self.broken("a defect showed" + "".join(run.said)[-3000:])
        if run.left_alone and run.code != 0:
            raise self.broken(f"a run that nothing should have ended failed with {run.code}")
        resumed = run.document.get("resumed_from_bytes", 0)
        before = self.committed_bytes
        if run.code == 0 and 0 < before < self.size_bytes and resumed < before:
            raise self.broken(f"went on from {resumed}, {before} was told")
        self.committed_bytes = max(before, run.committed_bytes)

    def broken(self, what: str) -> Broken:
        """The promise that was not kept, with all that went before."""
        return Broken(what + "\n  " + "\n  ".join(self.lines) + "\n")


def turn(blows: list[Blow]) -> list[Blow]:
    """Take those of the next run off `blows`: all up to the first that may end it."""
    harsh = next((at for at, blow in enumerate(blows) if not blow.is_gentle), len(blows))
    taken, blows[:] = blows[: harsh + 1], blows[harsh + 1 :]
    return taken


def start(
    arguments: list[str], place: Path, environment: Mapping[str, str]
) -> "subprocess.Popen[str]":
    """`blockferry …  -o json`, in a session of its own."""
    return subprocess.Popen(
        [sys.executable, "-m", "blockferry_controller", *arguments, "-o", "json"],
        cwd=place, env=environment, text=True, start_new_session=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip


def environment(place: Path, **more: str) -> dict[str, str]:
    """Ours without any BLOCKFERRY setting, and a state below `place`."""
    kept = {name: text for name, text in os.environ.items() if "BLOCKFERRY" not in name}
    state = f"sqlite:///{place}/state/state.db"
    return {**kept, "BLOCKFERRY_STATE": state, "XDG_CONFIG_HOME": str(place), **more}
