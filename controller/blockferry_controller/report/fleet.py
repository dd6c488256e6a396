"""The report of a fleet: what became of every volume, in total and one by one.

As a document, and from that as Markdown, HTML and CSV. Names come from clouds: they are
escaped in each of them, and no cell of the CSV can begin a formula.
"""

import csv
import html
import io
from collections.abc import Mapping, Sequence
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any, Final

from blockferry_controller.notation import printable
from blockferry_controller.ui.documents import moment
from blockferry_controller.ui.table import cell, label

if TYPE_CHECKING:
    from blockferry_controller.engine.fleets import FleetRecord, ItemRecord
    from blockferry_controller.engine.records import MigrationRecord

_COLUMNS: Final = (
    "name", "id", "state", "reason", "wave", "size_bytes", "sent_bytes", "wire_bytes",
    "duration_seconds", "bytes_per_second", "attempts", "verified", "digest", "type", "to_type",
    "type_by", "to_name", "destination_volume_id", "left", "migration", "started_at", "ended_at",
)  # fmt: skip
_SHOWN: Final = (
    "name", "state", "size_bytes", "duration_seconds", "bytes_per_second", "to_type", "verified",
    "digest", "left", "reason",
)  # fmt: skip
_FORMULA: Final = ("=", "+", "-", "@", "\t", "\r")


def build(
    record: "FleetRecord",
    items: Sequence["ItemRecord"],
    migrations: Mapping[str, "MigrationRecord"],
) -> dict[str, Any]:
    """The document.

    Args:
        record: The fleet.
        items: All of it.
        migrations: Those of its items, by id.
    """
    volumes = [_volume(item, migrations.get(item.migration_id)) for item in items]
    moved = [one for one in volumes if one["state"] == "SUCCEEDED"]
    begun = [item.started_at for item in items if item.started_at]
    ended = [item.ended_at for item in items if item.ended_at and item.started_at]
    seconds = (max(ended) - min(begun)).total_seconds() if begun and ended else 0.0
    size = sum(one["size_bytes"] for one in moved)
    return {
        "fleet": record.id,
        "state": record.state,
        "message": record.message,
        "from": record.source,
        "to": record.destination,
        "made_at": moment(datetime.now(timezone.utc)),
        "totals": {
            "volumes": len(volumes),
            **{state.lower(): count for state, count in sorted(record.counts.items())},
            "size_bytes": size,
            "sent_bytes": sum(one["sent_bytes"] for one in moved),
            "wire_bytes": sum(one["wire_bytes"] for one in moved),
            "verified": sum(one["verified"] for one in moved),
            "duration_seconds": seconds,
            "bytes_per_second": round(size / seconds) if seconds else 0,
        },
        "failures": _failures(items),
        "volumes": volumes,
    }


def _failures(items: Sequence["ItemRecord"]) -> list[dict[str, Any]]:
    """How many failed of each reason, the most first."""
    counts: dict[str, int] = {}
    for item in items:
        if item.state.value == "FAILED":
            counts[item.why] = counts.get(item.why, 0) + 1
    found = sorted(counts.items(), key=lambda one: (-one[1], one[0]))
    return [{"reason": why, "volumes": count} for why, count in found]


def _volume(item: "ItemRecord", migration: "MigrationRecord | None") -> dict[str, Any]:
    result = (migration.result if migration else None) or {}
    facts = migration.facts if migration else {}
    seconds = float(result.get("duration_seconds") or 0.0)
    plan = item.plan
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
        "bytes_per_second": round(item.size_bytes / seconds) if seconds else 0,
        "attempts": migration.attempts if migration else 0,
        "verified": bool(result.get("verified")),
        "digest": result.get("digest") or "",
        "type": plan.get("type", ""),
        "to_type": plan.get("to_type", ""),
        "type_by": plan.get("by", {}).get("type", ""),
        "to_name": plan.get("to_name", ""),
        "destination_volume_id": facts.get("destination_volume_id", ""),
        "left": _left(item, migration),
        "migration": item.migration_id,
        "started_at": moment(item.started_at),
        "ended_at": moment(item.ended_at),
    }


def _left(item: "ItemRecord", migration: "MigrationRecord | None") -> str:
    """What of a volume that is not through was kept, and where; for people."""
    if migration is None or item.state.value in {"SUCCEEDED", "CANCELLED"}:
        return ""
    if not migration.progress.committed_bytes:
        return ""
    volume = migration.facts.get("destination_volume_id", "")
    return f"volume {volume} in {migration.spec.destination.cloud}" if volume else ""


def as_markdown(report: Mapping[str, Any]) -> str:
    """For people; reads well as plain text, too."""
    totals = [f"| {label(key)} | {cell(key, value)} |" for key, value in report["totals"].items()]
    blocks = [
        f"# Fleet {report['fleet']}",
        f"**{report['state']}**, {report['from']} to {report['to']}, {report['made_at']}"
        + (f": {_marked(report['message'])}" if report["message"] else ""),
        "\n".join(["| total | |", "|---|---|", *totals]),
        _table("Failures", report["failures"], ("reason", "volumes")),
        _table("Volumes", report["volumes"], _SHOWN),
    ]
    return "\n\n".join(block for block in blocks if block) + "\n"


def _table(title: str, rows: Sequence[Mapping[str, Any]], keys: Sequence[str]) -> str:
    if not rows:
        return ""
    head = "| " + " | ".join(label(key) for key in keys) + " |"
    lines = ["| " + " | ".join(_marked(cell(key, row[key])) for key in keys) + " |" for row in rows]
    return "\n".join([f"## {title}", "", head, "|" + "---|" * len(keys), *lines])


def _marked(text: str) -> str:
    return printable(text).replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;")


def as_csv(report: Mapping[str, Any]) -> str:
    """One line a volume, units as in the document."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(_COLUMNS)
    for row in report["volumes"]:
        writer.writerow([_harmless(row[key]) for key in _COLUMNS])
    return out.getvalue()


def _harmless(value: object) -> object:
    """A spreadsheet runs what begins like a formula: a volume may be named so."""
    text = str(value)
    return f"'{text}" if isinstance(value, str) and text.startswith(_FORMULA) else value


def as_html(report: Mapping[str, Any]) -> str:
    """A page that needs nothing else."""
    name = html.escape(str(report["fleet"]))
    totals = "".join(
        f"<tr><th>{html.escape(label(key))}</th><td>{html.escape(cell(key, value))}</td></tr>"
        for key, value in report["totals"].items()
    )
    head = "".join(f"<th>{html.escape(label(key))}</th>" for key in _SHOWN)
    rows = "".join(
        f'<tr class="{html.escape(row["state"].lower())}">'
        + "".join(f"<td>{html.escape(cell(key, row[key]))}</td>" for key in _SHOWN)
        + "</tr>\n"
        for row in report["volumes"]
    )
    message = html.escape(printable(str(report["message"])))
    return (
        f'<!doctype html>\n<html lang="en"><meta charset="utf-8"><title>Fleet {name}</title>\n'
        "<style>body{font:14px sans-serif}table{border-collapse:collapse;margin:1em 0}"
        "td,th{border:1px solid #ccc;padding:2px 8px;text-align:left}"
        ".failed td{background:#fdd}.succeeded td{background:#efe}</style>\n"
        f"<h1>Fleet {name}: {html.escape(str(report['state']))}</h1>\n<p>{message}</p>\n"
        f"<table>{totals}</table>\n<table><tr>{head}</tr>\n{rows}</table></html>\n"
    )
