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

    def __str__(self) -> str:
        when = f"at {self.share:.0%}" if self.step == "copy" else f"in {self.step}"
        return f"{self.kind} {when} + {self.delay:.2f} s"

    @classmethod
    def random(cls, dice: random.Random, kinds: tuple[str, ...]) -> "Blow":
        """Half of them hit the copy itself."""
        step = dice.choice([*STEPS, *["copy"] * len(STEPS)])
        return cls(dice.choice(kinds), step, dice.uniform(0, 0.95), dice.uniform(0, 0.3))

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
        strike: Does it; False when there was nothing to hit any more.
        committed_bytes: The highest commit point told.
        struck: Whether the blow did happen.
        migration_id: As told; empty before.
    """

    arguments: list[str]
    place: Path
    environment: Mapping[str, str]
    data_bytes: int
    blow: Blow | None
    strike: Callable[["Run", Blow], bool]
    committed_bytes: int = 0
    struck: bool = False
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
            self._listen()
            reader.join()
        self.code = self.process.returncode
        try:
            self.document = json.loads(out[0])
        except ValueError:
            self.document = {}
        return self

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
        if self.blow is None or self.struck or not self.blow.is_due(event, self.data_bytes):
            return
        time.sleep(self.blow.delay)
        self.struck = self.strike(self, self.blow)


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
        blow = run.blow if run.struck else "left alone"
        self.lines.append(f"{run.arguments[0]}: {blow} -> {run.code}")
        self.lines += [f"    {line.rstrip()[:300]}" for line in run.said[-6:]]
        if any("Traceback" in line for line in run.said) or run.code == 1:
            raise self.broken("a defect showed" + "".join(run.said)[-3000:])
        if not run.struck and run.code != 0:
            raise self.broken(f"a run that was left alone failed with {run.code}")
        resumed = run.document.get("resumed_from_bytes", 0)
        before = self.committed_bytes
        if run.code == 0 and 0 < before < self.size_bytes and resumed < before:
            raise self.broken(f"went on from {resumed}, {before} was told")
        self.committed_bytes = max(before, run.committed_bytes)

    def broken(self, what: str) -> Broken:
        """The promise that was not kept, with all that went before."""
        return Broken(what + "\n  " + "\n  ".join(self.lines) + "\n")


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
