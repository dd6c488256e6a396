"""The report of a fleet as one document: what became of every volume, in total and one by one.

Rules:
* It says only what is recorded; no cloud is asked. So it can be made at any time, from any
  machine that shares the state, while the fleet runs or years later.
* Names are a contract like those of `-o json`: new ones may come, none goes.
* Other modules write it down for people and spreadsheets (fleet_markdown, fleet_html,
  fleet_csv); they leave out, and add nothing.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

from blockferry_controller.ui.documents import moment

if TYPE_CHECKING:
    from blockferry_controller.engine.fleets import FleetRecord, ItemRecord
    from blockferry_controller.engine.records import MigrationRecord

_SUCCEEDED, _FAILED = "SUCCEEDED", "FAILED"
_MAPPED = ("type", "zone", "name")


def build(
    record: "FleetRecord",
    items: Sequence["ItemRecord"],
    migrations: Mapping[str, "MigrationRecord"],
    hooks: Sequence[Mapping[str, Any]] = (),
) -> dict[str, Any]:
    """The document.

    Args:
        record: The fleet.
        items: All of it.
        migrations: Those of its items, by id.
        hooks: What they were told; see fleet_hooks.
    """
    volumes = [_volume(item, migrations.get(item.migration_id)) for item in items]
    return {
        "fleet": record.id,
        "state": record.state,
        "message": record.message,
        "from": record.source,
        "to": record.destination,
        "made_at": moment(datetime.now(timezone.utc)),
        "totals": _totals(record, items, volumes),
        "waves": _waves(record, items),
        "failures": _failures(items),
        "hooks": [dict(hook) for hook in hooks],
        "volumes": volumes,
    }


def _totals(
    record: "FleetRecord", items: Sequence["ItemRecord"], volumes: Sequence[Mapping[str, Any]]
) -> dict[str, Any]:
    moved = [one for one in volumes if one["state"] == _SUCCEEDED]
    size = sum(one["size_bytes"] for one in moved)
    begun, ended = _span(items)
    seconds = (ended - begun).total_seconds() if begun and ended else 0.0
    return {
        "volumes": len(volumes),
        **{state.lower(): count for state, count in sorted(record.counts.items())},
        "size_bytes": size,
        "sent_bytes": sum(one["sent_bytes"] for one in moved),
        "wire_bytes": sum(one["wire_bytes"] for one in moved),
        "verified": sum(one["verified"] for one in moved),
        "left_behind": sum(bool(one["left"]) for one in volumes),
        "duration_seconds": seconds,
        "bytes_per_second": round(size / seconds) if seconds else 0,
    }


def _span(items: Sequence["ItemRecord"]) -> tuple[datetime | None, datetime | None]:
    """When the first began and the last that had begun ended."""
    begun = [item.started_at for item in items if item.started_at]
    ended = [item.ended_at for item in items if item.started_at and item.ended_at]
    return min(begun, default=None), max(ended, default=None)


def _waves(record: "FleetRecord", items: Sequence["ItemRecord"]) -> list[dict[str, Any]]:
    """Each wave that has volumes, in the order of the fleet file."""
    named = [str(wave.get("name")) for wave in record.document.get("waves") or [{"name": "all"}]]
    by_wave: dict[str, list[ItemRecord]] = {name: [] for name in named}
    for item in items:
        by_wave.setdefault(item.wave, []).append(item)
    return [_wave(name, own) for name, own in by_wave.items() if own]


def _wave(name: str, items: Sequence["ItemRecord"]) -> dict[str, Any]:
    states = Counter(item.state.value for item in items)
    begun, ended = _span(items)
    return {
        "wave": name,
        "volumes": len(items),
        "succeeded": states[_SUCCEEDED],
        "failed": states[_FAILED],
        "size_bytes": sum(item.size_bytes for item in items),
        "started_at": moment(begun),
        "ended_at": moment(ended) if all(item.state.final for item in items) else None,
    }


def _failures(items: Sequence["ItemRecord"]) -> list[dict[str, Any]]:
    """How many failed of each reason, the most first."""
    counts = Counter(item.why for item in items if item.state.value == _FAILED)
    found = sorted(counts.items(), key=lambda one: (-one[1], one[0]))
    return [{"reason": why, "volumes": count} for why, count in found]


def _volume(item: "ItemRecord", migration: "MigrationRecord | None") -> dict[str, Any]:
    result = (migration.result if migration else None) or {}
    facts = migration.facts if migration else {}
    seconds = float(result.get("duration_seconds") or 0.0)
    moved = item.state.value == _SUCCEEDED
    return {
        "name": item.name,
        "id": item.volume_id,
        "state": item.state.value,
        "why": item.why,
        "reason": ": ".join(part for part in (item.why, item.reason) if part),
        "wave": item.wave,
        "size_bytes": item.size_bytes,
        "sent_bytes": int(result.get("sent_bytes") or 0),
        "wire_bytes": int(result.get("wire_bytes") or 0),
        "duration_seconds": seconds,
        "bytes_per_second": round(item.size_bytes / seconds) if moved and seconds else 0,
        "attempts": migration.attempts if migration else 0,
        "verified": bool(result.get("verified")),
        "digest": result.get("digest") or "",
        **_mapping(item.plan),
        "destination_volume_id": facts.get("destination_volume_id", ""),
        "left": _left(item, migration),
        "migration": item.migration_id,
        "started_at": moment(item.started_at),
        "ended_at": moment(item.ended_at),
    }


def _mapping(plan: Mapping[str, Any]) -> dict[str, Any]:
    """What the volume became, and by which rule."""
    by = plan.get("by") or {}
    mapped: dict[str, Any] = {"type": plan.get("type") or "", "zone": plan.get("zone") or ""}
    for what in _MAPPED:
        mapped[f"to_{what}"] = plan.get(f"to_{what}") or ""
        mapped[f"{what}_by"] = by.get(what) or ""
    mapped["to_metadata"] = plan.get("to_metadata")
    return mapped


def _left(item: "ItemRecord", migration: "MigrationRecord | None") -> str:
    """What of a volume that is not through is in the clouds, and where; for people.

    A copy is kept only when bytes of it are durable; see migration/plan.py.
    """
    if migration is None or item.state.value in {_SUCCEEDED, "CANCELLED"}:
        return ""
    source, destination = migration.spec.source.cloud, migration.spec.destination.cloud
    if item.state.value == "RUNNING":
        return f"at work in {source} and {destination}"
    volume = migration.facts.get("destination_volume_id", "")
    kept = volume and migration.progress.committed_bytes
    return f"volume {volume} in {destination}" if kept else ""
