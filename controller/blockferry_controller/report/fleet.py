"""The report of a fleet as one document: what became of every volume, in total and one by one.

Rules:
* It says only what is recorded; no cloud is asked. So it can be made at any time, from any
  machine that shares the state, while the fleet runs or years later.
* Names are a contract like those of `-o json`: new ones may come, none goes.
* Volumes are read once, and never had all at once: totals come first in every form, so what
  is written of the volumes waits in a file until they are known (`write`).
* Other modules write it down for people and spreadsheets (fleet_markdown, fleet_html,
  fleet_csv); they leave out, and add nothing.
"""

import json
import shutil
import tempfile
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any, Final, Protocol, TextIO

from msgspec import Struct, field

from blockferry_controller.ui.documents import moment

if TYPE_CHECKING:
    from blockferry_controller.engine.fleet_records import FleetRecord
    from blockferry_controller.engine.outcomes import Outcome

_SUCCEEDED, _FAILED = "SUCCEEDED", "FAILED"
_FINAL: Final = frozenset({_SUCCEEDED, _FAILED, "CANCELLED", "SKIPPED"})
_MAPPED: Final = tuple((name, f"to_{name}", f"{name}_by") for name in ("type", "zone", "name"))


class Form(Protocol):
    """How a report is written down, piece by piece."""

    def begin(self, head: Mapping[str, Any]) -> str:
        """Everything but the volumes."""
        ...

    def row(self, row: Mapping[str, Any]) -> str:
        """A volume."""
        ...

    def end(self) -> str:
        """What follows the last."""
        ...


def write(
    out: TextIO,
    record: "FleetRecord",
    outcomes: "Iterable[Outcome]",
    hooks: Sequence[Mapping[str, Any]],
    form: Form,
) -> None:
    """Write the report.

    Args:
        out: Gets it; nothing before the last volume was read.
        record: The fleet.
        outcomes: All its volumes.
        hooks: What they were told; see fleet_hooks.
        form: How.
    """
    tally = Tally(record)
    with tempfile.TemporaryFile("w+", encoding="utf-8", newline="") as rows:
        for outcome in outcomes:
            volume = volume_of(record, outcome)
            tally.add(outcome, volume)
            rows.write(form.row(volume))
        rows.seek(0)
        out.write(form.begin(tally.head(hooks)))
        shutil.copyfileobj(rows, out)
    out.write(form.end())


class _Part(Struct):
    """Volumes of a wave, or of all."""

    volumes: int = 0
    size_bytes: int = 0
    states: Counter[str] = field(default_factory=Counter)
    begun_at: datetime | None = None
    ended_at: datetime | None = None

    def add(self, outcome: "Outcome") -> None:
        self.volumes += 1
        self.size_bytes += outcome.size_bytes
        self.states[outcome.state] += 1
        begun, ended = outcome.started_at, outcome.ended_at
        if begun and (self.begun_at is None or begun < self.begun_at):
            self.begun_at = begun
        if begun and ended and (self.ended_at is None or ended > self.ended_at):
            self.ended_at = ended


class Tally:
    """What there is to say of all volumes together. Not thread-safe."""

    def __init__(self, record: "FleetRecord") -> None:
        self._record = record
        self._all = _Part()
        named = record.document.get("waves") or [{"name": "all"}]
        self._waves = {str(wave.get("name")): _Part() for wave in named}
        self._failures: Counter[str] = Counter()
        self._sums = dict.fromkeys(
            ("size_bytes", "sent_bytes", "wire_bytes", "verified", "left_behind"), 0
        )

    def add(self, outcome: "Outcome", volume: Mapping[str, Any]) -> None:
        """Count one, and what the report says of it."""
        self._all.add(outcome)
        self._waves.setdefault(outcome.wave, _Part()).add(outcome)
        if outcome.state == _FAILED:
            self._failures[outcome.why] += 1
        if outcome.state == _SUCCEEDED:
            for key in ("size_bytes", "sent_bytes", "wire_bytes", "verified"):
                self._sums[key] += volume[key]
        self._sums["left_behind"] += bool(volume["left"])

    def head(self, hooks: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """The document without its volumes."""
        record = self._record
        return {
            "fleet": record.id,
            "state": record.state,
            "message": record.message,
            "from": record.source,
            "to": record.destination,
            "made_at": moment(datetime.now(timezone.utc)),
            "totals": self._totals(),
            # Each that has volumes, in the order of the fleet file.
            "waves": [_wave(name, part) for name, part in self._waves.items() if part.volumes],
            "failures": [
                {"reason": why, "volumes": count}
                for why, count in sorted(self._failures.items(), key=lambda one: (-one[1], one[0]))
            ],
            "hooks": [dict(hook) for hook in hooks],
        }

    def _totals(self) -> dict[str, Any]:
        begun, ended = self._all.begun_at, self._all.ended_at
        seconds = (ended - begun).total_seconds() if begun and ended else 0.0
        size = self._sums["size_bytes"]
        return {
            "volumes": self._all.volumes,
            **{state.lower(): count for state, count in sorted(self._all.states.items())},
            **self._sums,
            "duration_seconds": seconds,
            "bytes_per_second": round(size / seconds) if seconds else 0,
        }


def _wave(name: str, part: _Part) -> dict[str, Any]:
    over = _FINAL.issuperset(part.states)
    return {
        "wave": name,
        "volumes": part.volumes,
        "succeeded": part.states[_SUCCEEDED],
        "failed": part.states[_FAILED],
        "size_bytes": part.size_bytes,
        "started_at": _moment(part.begun_at),
        "ended_at": _moment(part.ended_at) if over else None,
    }


def volume_of(record: "FleetRecord", outcome: "Outcome") -> dict[str, Any]:
    """What the report says of one volume."""
    result = json.loads(outcome.result or "null") or {}
    seconds = float(result.get("duration_seconds") or 0.0)
    moved = outcome.state == _SUCCEEDED
    parts = (outcome.why, outcome.reason)
    return {
        "name": outcome.name,
        "id": outcome.volume_id,
        "state": outcome.state,
        "why": outcome.why,
        "reason": ": ".join(part for part in parts if part),
        "wave": outcome.wave,
        "size_bytes": outcome.size_bytes,
        "sent_bytes": int(result.get("sent_bytes") or 0),
        "wire_bytes": int(result.get("wire_bytes") or 0),
        "duration_seconds": seconds,
        "bytes_per_second": round(outcome.size_bytes / seconds) if moved and seconds else 0,
        "attempts": outcome.epoch or 0,
        "verified": bool(result.get("verified")),
        "digest": result.get("digest") or "",
        **_mapping(json.loads(outcome.plan)),
        "destination_volume_id": outcome.destination or "",
        "left": _left(record, outcome),
        "migration": outcome.migration_id,
        "started_at": _moment(outcome.started_at),
        "ended_at": _moment(outcome.ended_at),
    }


def _mapping(plan: Mapping[str, Any]) -> dict[str, Any]:
    """What the volume became, and by which rule."""
    by = plan.get("by") or {}
    mapped: dict[str, Any] = {"type": plan.get("type") or "", "zone": plan.get("zone") or ""}
    for what, to_what, what_by in _MAPPED:
        mapped[to_what] = plan.get(to_what) or ""
        mapped[what_by] = by.get(what) or ""
    mapped["to_metadata"] = plan.get("to_metadata")
    return mapped


def _left(record: "FleetRecord", outcome: "Outcome") -> str:
    """What of a volume that is not through is in the clouds, and where; for people.

    A copy is kept only when bytes of it are durable; see migration/plan.py.
    """
    if outcome.epoch is None or outcome.state in {_SUCCEEDED, "CANCELLED"}:
        return ""
    if outcome.state == "RUNNING":
        return f"at work in {record.source} and {record.destination}"
    progress = json.loads(outcome.progress or "null") or {}
    kept = outcome.destination and progress.get("committed_bytes")
    return f"volume {outcome.destination} in {record.destination}" if kept else ""


def _moment(time: datetime | None) -> str | None:
    """SQLite keeps no time zone; what is stored is always UTC."""
    if time is None:
        return None
    return moment(time.replace(tzinfo=timezone.utc) if time.tzinfo is None else time)
