"""How a fleet stands: as a document, and for people."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from blockferry_controller.ui.documents import moment
from blockferry_controller.ui.table import render_rows

if TYPE_CHECKING:
    from blockferry_controller.engine.fleet_records import FleetLine, FleetRecord, ItemRecord
    from blockferry_controller.engine.pair_records import PairRecord

COLUMNS: Final = (
    ("volume", "name"),
    ("size", "size_bytes"),
    ("wave", "wave"),
    ("state", "state"),
    ("migration", "migration"),
    ("attempts", "attempts"),
    ("why", "what"),
)

PAIR_COLUMNS: Final = (
    ("pair", "id"),
    ("state", "state"),
    ("lanes", "taken"),
    ("served", "served"),
    ("migrations", "migrations"),
    ("made", "made_at"),
)

FLEET_COLUMNS: Final = (
    ("fleet", "fleet"),
    ("state", "state"),
    ("route", "route"),
    ("volumes", "volumes"),
    ("of which", "counts"),
    ("updated", "updated_at"),
)


def document(
    record: "FleetRecord", pairs: Sequence["PairRecord"], items: Sequence["ItemRecord"]
) -> dict[str, Any]:
    """What `batch` and, of few volumes, `show FLEET` write."""
    return {**head(record, pairs), "volumes": [volume(item) for item in items]}


def head(record: "FleetRecord", pairs: Sequence["PairRecord"]) -> dict[str, Any]:
    """All of that but the volumes."""
    return {**summary(record), "pairs": [pair(one) for one in pairs]}


def pair(record: "PairRecord") -> dict[str, Any]:
    """One of the pairs of instances that a fleet's volumes share."""
    return {
        "id": record.id,
        "state": record.state.value,
        "served": record.served,
        "made_at": moment(record.made_at),
        "lanes": [
            {"lane": lane.number, "migration": lane.migration_id, "served": lane.served}
            for lane in record.lanes
        ],
    }


def summary(record: "FleetLine") -> dict[str, Any]:
    """One fleet in a line of a list: `list --fleets`."""
    return {
        "fleet": record.id,
        "state": record.state,
        "from": record.source,
        "to": record.destination,
        "counts": dict(record.counts),
        "created_at": moment(record.created_at),
        "updated_at": moment(record.updated_at),
        "ended_at": moment(record.ended_at),
        "message": record.message,
    }


def render_fleets(documents: Sequence[Mapping[str, Any]]) -> str:
    """A table of fleets, out of their summaries."""
    rows = [
        {
            **one,
            "route": f"{one['from']} to {one['to']}",
            "volumes": sum(one["counts"].values()),
            "counts": ", ".join(f"{count} {word.lower()}" for word, count in one["counts"].items()),
        }
        for one in documents
    ]
    return render_rows(rows, FLEET_COLUMNS)


def volume(item: "ItemRecord") -> dict[str, Any]:
    """One volume of the document."""
    return {
        "id": item.volume_id,
        "name": item.name,
        "size_bytes": item.size_bytes,
        "wave": item.wave,
        "state": item.state.value,
        "why": item.why,
        "reason": item.reason,
        "migration": item.migration_id,
        "attempts": item.attempts,
        "not_before": moment(item.not_before),
        "started_at": moment(item.started_at),
        "ended_at": moment(item.ended_at),
    }


def render(document: Mapping[str, Any]) -> str:
    """A table of the volumes, and how many are in each state."""
    rows = [
        {
            **item,
            "name": item["name"] or item["id"],
            "what": ": ".join(part for part in (item["why"], item["reason"]) if part),
        }
        for item in document["volumes"]
    ]
    counts = ", ".join(f"{count} {state.lower()}" for state, count in document["counts"].items())
    last = f"Fleet {document['fleet']} is {document['state']}: {counts}."
    if document["message"]:
        last += f"\n{document['message']}"
    pairs = f"{_render_pairs(document['pairs'])}\n\n" if document["pairs"] else ""
    return f"{render_rows(rows, COLUMNS)}\n\n{pairs}{last}"


def _render_pairs(pairs: Sequence[Mapping[str, Any]]) -> str:
    rows = []
    for one in pairs:
        inside = [lane["migration"] for lane in one["lanes"] if lane["migration"]]
        taken = f"{len(inside)} of {len(one['lanes'])} taken"
        rows.append({**one, "taken": taken, "migrations": ", ".join(inside)})
    return render_rows(rows, PAIR_COLUMNS)
