"""Events as plain lines, for logs: steps as they come, progress every few seconds.

A step that tells nothing for long, such as booting an instance, gets a line of
its own now and then: silence would look like a hang.
"""

from collections.abc import Callable
from datetime import datetime
from typing import Final

from blockferry_controller.events import Event, Progressed, StepFinished, StepStarted
from blockferry_controller.notation import format_duration, printable
from blockferry_controller.ui.pace import Pace
from blockferry_controller.ui.phrases import phrase, progress_phrase

INTERVAL_SECONDS: Final = 5.0
QUIET_SECONDS: Final = 15.0


class Lines:
    """Writes a line an event, and a progress line each INTERVAL_SECONDS."""

    def __init__(self, write: Callable[[str], None]) -> None:
        """Make it; `write` takes one line with its line feed."""
        self._write = write
        self._pace = Pace()
        self._phase = ""
        self._last: datetime | None = None
        self._step: StepStarted | None = None
        self._said: datetime | None = None

    def __call__(self, event: Event) -> None:
        """See migration.events.Listener."""
        if not isinstance(event, Progressed):
            if isinstance(event, StepStarted | StepFinished):
                self._step = event if isinstance(event, StepStarted) else None
            self._say(event.time, phrase(event))
            return
        reading = self._pace.read(event)
        if self._is_due(event, finished=reading.done_bytes >= reading.size_bytes):
            self._last = event.time
            self._say(event.time, progress_phrase(reading))

    def tick(self, now: datetime) -> None:
        """Say that the current step still runs, when nothing was said for QUIET_SECONDS."""
        if self._step is None or self._said is None:
            return
        if (now - self._said).total_seconds() >= QUIET_SECONDS:
            seconds = (now - self._step.time).total_seconds()
            name = printable(self._step.step)
            self._say(now, f"{name} has been running for {format_duration(seconds)}")

    def _is_due(self, event: Progressed, *, finished: bool) -> bool:
        """At the interval, and once more when a phase is complete."""
        if finished:
            due = self._phase != event.progress.phase
            self._phase = event.progress.phase
            return due
        if self._last is None:
            return True
        return (event.time - self._last).total_seconds() >= INTERVAL_SECONDS

    def _say(self, time: datetime, text: str) -> None:
        self._said = time
        self._write(f"{time.astimezone():%H:%M:%S} {text}\n")
