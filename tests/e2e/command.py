"""`blockferry` as its user runs it, and what it told on the way."""

import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

MIB: Final = 1 << 20
COMMAND_SECONDS: Final = 1500
"""A migration takes two minutes on a quiet machine, and was seen to take seven at a load of 20."""

Event = Mapping[str, Any]


class Run:
    """One command at work; with `-o json` its events are read as they come."""

    def __init__(self, environment: Mapping[str, str], *arguments: object) -> None:
        self.arguments = [str(argument) for argument in arguments]
        self.events: list[Event] = []
        self.said: list[str] = []
        self._came = threading.Condition()
        self.process = subprocess.Popen(
            [sys.executable, "-m", "blockferry_controller", *self.arguments, "-o", "json"],
            env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        self._stdout = ""
        self._readers = [threading.Thread(target=one) for one in (self._listen, self._read)]
        for reader in self._readers:
            reader.start()

    def wait(self) -> int:
        """The exit code."""
        code = self.process.wait(COMMAND_SECONDS)
        for reader in self._readers:
            reader.join()
        return code

    def wait_for(self, wanted: Callable[[Event], bool]) -> None:
        """Return once such an event came.

        Raises:
            TimeoutError: it did not come; or the command ended without it.
        """
        deadline = time.monotonic() + COMMAND_SECONDS
        with self._came:
            while not any(wanted(event) for event in self.events):
                if time.monotonic() > deadline or self.process.poll() is not None:
                    raise TimeoutError(f"no such event: {self.told()}")
                self._came.wait(1.0)

    def end(self) -> None:
        """Have it end at once, if it still runs."""
        self.process.kill()
        self.wait()

    def told(self) -> str:
        """Its words but for progress, for a failed assertion."""
        return "\n".join(line for line in self.said if '"progress"' not in line)

    @property
    def result(self) -> Any:
        """The JSON document on standard output."""
        return json.loads(self._stdout)

    @property
    def migration_id(self) -> str:
        """The migration that it works on."""
        return str(next(event["migration_id"] for event in self.events))

    def _listen(self) -> None:
        stream = self.process.stderr
        assert stream is not None
        with stream:
            for line in stream:
                with self._came:
                    self.said.append(line.rstrip())
                    if line.startswith("{"):
                        self.events.append(json.loads(line))
                    self._came.notify_all()

    def _read(self) -> None:
        stream = self.process.stdout
        assert stream is not None
        with stream:
            self._stdout = stream.read()


@dataclass
class Record:
    """What a variant came to, for the summary after the tests."""

    variant: str
    lines: list[str] = field(default_factory=list)

    def add(self, run: Run) -> None:
        """Steps with seconds, the addresses, the rate and the proven root of one run."""
        done = [event for event in run.events if event["event"] == "step_finished"]
        seconds = {str(event["step"]): float(event["seconds"]) for event in done}
        detail = {str(event["step"]): str(event["detail"]) for event in done}
        self.lines.append(f"$ blockferry {' '.join(run.arguments)}")
        if seconds:
            steps = ", ".join(f"{name} {took:.1f}" for name, took in seconds.items())
            self.lines.append(f"  seconds: {steps}; in all {sum(seconds.values()):.0f}")
        if "connect" in detail:
            self.lines.append(f"  agents: {detail['reach']}; rung: {detail['connect']}")
        result = run.result if run.process.returncode == 0 else {}
        if "copy" in seconds and result:
            self._add_bytes(result, seconds)
        if run.process.returncode:
            said = [event["message"] for event in run.events if event["event"] == "ended"]
            self.lines.append(f"  exit {run.process.returncode}: {' '.join(said)[:200]}")

    def _add_bytes(self, result: Any, seconds: Mapping[str, float]) -> None:
        size, data = result["size_bytes"] / MIB, result["data_bytes"] / MIB
        copy, proof = (max(seconds[name], 0.001) for name in ("copy", "proof"))
        self.lines.append(
            f"  rate: {size / copy:.0f} MiB/s of volume, {data:.0f} MiB of data "
            f"({data / copy:.1f} MiB/s), {result['wire_bytes'] / MIB:.0f} MiB on the wire; "
            f"proof {size / proof:.0f} MiB/s"
        )
        if result["resumed_from_bytes"]:
            self.lines.append(f"  resumed from {result['resumed_from_bytes'] / MIB:.0f} MiB")
        self.lines.append(f"  proof root: {result['digest']}")
