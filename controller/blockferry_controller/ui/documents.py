"""Migration records as documents: plain types under the names of docs/cli.md.

The names are a contract: programs read them. New ones may come, none goes.
"""

from datetime import datetime
from typing import TYPE_CHECKING, Any, Final

from msgspec.structs import asdict

if TYPE_CHECKING:
    from blockferry_controller.engine.records import MigrationRecord
    from blockferry_controller.engine.requests import Request

Document = dict[str, Any]

LIST_COLUMNS: Final = (
    ("id", "id"),
    ("state", "state"),
    ("source", "source"),
    ("destination", "destination"),
    ("size", "size_bytes"),
    ("committed", "committed_bytes"),
    ("updated", "updated_at"),
)
"""Headings of `blockferry list` and the keys below them."""

_COUNTS: Final = (
    "size_bytes",
    "data_bytes",
    "zero_bytes",
    "resumed_from_bytes",
    "sent_bytes",
    "wire_bytes",
)


def list_item(record: "MigrationRecord") -> Document:
    """One element of `blockferry list -o json`."""
    return {
        "id": record.id,
        "kind": record.kind,
        "state": record.state,
        "source": record.source,
        "destination": record.destination,
        "size_bytes": record.size_bytes,
        "committed_bytes": record.progress.committed_bytes,
        "created_at": moment(record.created_at),
        "updated_at": moment(record.updated_at),
        "ended_at": moment(record.ended_at),
        "message": record.message,
    }


def result(record: "MigrationRecord") -> Document:
    """What `migrate`, `copy` and `resume` write, as far as it is known."""
    known = record.result or {}
    counts = {name: getattr(record.progress, name) for name in _COUNTS}
    counts["size_bytes"] = record.size_bytes
    return {
        "id": record.id,
        "state": record.state,
        "source": record.source,
        "destination": record.destination,
        **counts,
        "duration_seconds": _seconds(record),
        "verified": False,
        "digest": None,
        **{name: value for name, value in known.items() if name not in {"id", "state"}},
    }


def detail(record: "MigrationRecord") -> Document:
    """What `blockferry show` writes."""
    return {
        **list_item(record),
        "attempts": record.attempts,
        "error": record.error,
        "facts": dict(record.facts),
        "limit_bytes_per_second": _limit(record),
        "requests": [_request(request) for request in record.wants.by_want.values()],
        "progress": asdict(record.progress),
        "steps": steps(record),
        "result": record.result,
        "spec": record.spec.to_json(),
    }


def asked(record: "MigrationRecord", request: "Request") -> Document:
    """What `pause`, `set` and a `resume` that only wakes write."""
    return {
        "id": record.id,
        "state": record.state,
        "committed_bytes": record.progress.committed_bytes,
        "limit_bytes_per_second": _limit(record),
        "in_force": request.answered_at is not None and not request.answer,
        "answer": request.answer,
    }


def _limit(record: "MigrationRecord") -> int:
    """0 is unlimited."""
    wanted = record.wants.limit_bytes_per_second
    return record.spec.transfer.limit_bytes_per_second if wanted is None else wanted


def _request(request: "Request") -> Document:
    return {
        "want": request.want.value,
        "value": request.value,
        "asked_at": moment(request.asked_at),
        "answered_at": moment(request.answered_at),
        "answer": request.answer,
    }


def steps(record: "MigrationRecord") -> list[Document]:
    """The steps done, in order."""
    return [
        {
            "attempt": done.epoch,
            "step": done.name,
            "seconds": round(done.seconds, 3),
            "detail": done.detail,
        }
        for done in record.steps
    ]


def _seconds(record: "MigrationRecord") -> float:
    """From the first attempt's start on; the result knows better once there is one."""
    until = record.ended_at or record.updated_at
    return round(max(0.0, (until - record.created_at).total_seconds()), 3)


def moment(time: datetime | None) -> str | None:
    """ISO 8601 to the second, as everywhere in documents."""
    return None if time is None else time.isoformat(timespec="seconds")
