"""The report of a migration as one document of plain types.

Rules:
* It says only what is recorded; nothing is asked of a cloud. So the report of a
  migration is the same tomorrow.
* Names are a contract like those of `-o json`: new ones may come, none goes.
* `signature` is null here: signature.py signs the rest, once, at the end.
"""

import platform
from typing import Any, Final

from blockferry import __version__
from blockferry.limits import CHUNK_BYTES
from blockferry_controller.engine.records import MigrationRecord
from blockferry_controller.migration.ending import INTERRUPTIONS
from blockferry_controller.migration.steps.repair import REPAIR, repaired
from blockferry_controller.spec import Endpoint
from blockferry_controller.ui import documents

FORMAT: Final = "blockferry-report/1"
"""Grows when a name changes its meaning."""


def build(record: MigrationRecord) -> dict[str, Any]:
    """The report of one migration, ended or not."""
    result = documents.result(record)
    facts = dict(record.facts)
    return {
        "format": FORMAT,
        "id": record.id,
        "kind": record.kind,
        "state": record.state,
        "message": record.message,
        "source": _end(record.spec.source, record.source, facts, "source"),
        "destination": _end(record.spec.destination, record.destination, facts, "destination"),
        "proof": {
            "verified": result["verified"],
            "verify": record.spec.transfer.verify.value,
            "digest": result["digest"],
            "chunk_bytes": CHUNK_BYTES,
            "chunks": -(-record.size_bytes // CHUNK_BYTES),
            **repaired(facts),
        },
        "counts": _counts(record, result),
        "times": {
            "created_at": documents.moment(record.created_at),
            "ended_at": documents.moment(record.ended_at),
            "duration_seconds": result["duration_seconds"],
        },
        "attempts": record.attempts,
        "resumes": max(0, record.attempts - 1),
        "interruptions": facts.pop(INTERRUPTIONS, []),
        "rates": _rates(record),
        "steps": documents.steps(record),
        "not_carried": facts.pop("not_carried", []),
        "facts": {name: fact for name, fact in facts.items() if name != REPAIR},
        "error": record.error,
        "versions": {"blockferry": __version__, "python": platform.python_version()},
        "signature": None,
    }


def _rates(record: MigrationRecord) -> dict[str, Any]:
    """Means over the steps of the last attempt; only those that can be told."""
    seconds = {step.name: step.seconds for step in record.steps if step.epoch == record.epoch}
    progress = record.progress
    moved = {
        "copy": ("copy", progress.committed_bytes - progress.resumed_from_bytes),
        "wire": ("copy", progress.wire_bytes),
        "proof": ("proof", progress.verified_bytes),
    }
    return {
        f"{name}_bytes_per_second": round(count / seconds[step])
        for name, (step, count) in moved.items()
        if count > 0 and seconds.get(step, 0) > 0
    }


def _end(endpoint: Endpoint, label: str, facts: dict[str, Any], side: str) -> dict[str, Any]:
    """One end; what is told here is not told again among the facts."""
    return {
        "cloud": endpoint.cloud,
        "name": label,
        "volume_id": facts.pop(f"{side}_volume_id", ""),
    }


def _counts(record: MigrationRecord, result: dict[str, Any]) -> dict[str, Any]:
    names = ("size", "data", "zero", "resumed_from", "sent", "wire")
    counts = {f"{name}_bytes": result[f"{name}_bytes"] for name in names}
    return {
        **counts,
        "committed_bytes": record.progress.committed_bytes,
        "verified_bytes": record.progress.verified_bytes,
        "reconnects": record.progress.reconnects,
    }
