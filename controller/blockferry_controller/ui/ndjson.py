"""Events for programs: one JSON object a line, as docs/cli.md describes them."""

import json
from collections.abc import Callable
from datetime import datetime
from typing import Any, Final

from msgspec import to_builtins

from blockferry_controller.events import (
    Ended,
    Event,
    Noted,
    Progressed,
    StepFinished,
    StepStarted,
    Undone,
)
from blockferry_controller.ui.pace import Pace

NAMES: Final[dict[type[Event], str]] = {
    StepStarted: "step_started",
    StepFinished: "step_finished",
    Progressed: "progress",
    Noted: "note",
    Undone: "undone",
    Ended: "ended",
}
"""Value of `event` for each class."""


class Ndjson:
    """Writes every event as one line."""

    def __init__(self, write: Callable[[str], None]) -> None:
        """Make it; `write` takes one line with its line feed."""
        self._write = write
        self._pace = Pace()

    def __call__(self, event: Event) -> None:
        """See migration.events.Listener."""
        self._write(json.dumps(self._document(event)) + "\n")

    def _document(self, event: Event) -> dict[str, Any]:
        document = to_builtins(event, builtin_types=(datetime,))
        time = document.pop("time").isoformat(timespec="milliseconds")
        return {"event": NAMES[type(event)], "time": time, **self._flat(event, document)}

    def _flat(self, event: Event, document: dict[str, Any]) -> dict[str, Any]:
        """Progress counts stand beside the others, with what follows from them."""
        if not isinstance(event, Progressed):
            return document
        reading = self._pace.read(event)
        eta = None if reading.eta_seconds is None else round(reading.eta_seconds, 1)
        return {
            "migration_id": event.migration_id,
            **document["progress"],
            "percent": round(reading.percent, 1),
            "bytes_per_second": round(reading.bytes_per_second),
            "wire_bytes_per_second": round(reading.wire_bytes_per_second),
            "eta_seconds": eta,
        }
