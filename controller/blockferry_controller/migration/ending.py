"""What is left of a migration: why its attempts ended, and at last a signed report.

Rules:
* Each attempt that did not succeed leaves one line: why, and how far the bytes were
  that the next one went on from. One that died without a word is told by the next.
* The keys live until the report is signed and written down, and not longer. A
  controller that dies in between leaves both to whoever looks at the migration next.
"""

import contextlib
from collections.abc import Callable
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Final, TypeAlias

from blockferry.errors import BlockferryError
from blockferry_controller.engine.records import MigrationRecord
from blockferry_controller.engine.state import StateStore
from blockferry_controller.migration.authority import Authority

Seal: TypeAlias = Callable[[MigrationRecord, Authority], dict[str, Any]]
"""Makes the signed report of a migration that has succeeded."""

INTERRUPTIONS: Final = "interruptions"
"""The fact that lists them."""
_KEPT: Final = 100
"""Of a migration that is resumed for ever, the last ones tell enough."""


def keys_path(store: StateStore, migration_id: str) -> Path:
    """File (0600) that holds the migration's authority while it has not ended."""
    return store.directory / "authorities" / f"{migration_id}.pem"


def note_interruption(
    store: StateStore, record: MigrationRecord, epoch: int, reason: str, why: str
) -> None:
    """Remember why the attempt of `record` ended, while `epoch` is the newest."""
    known = list(record.facts.get(INTERRUPTIONS, ()))
    line = {
        "attempt": record.epoch,
        "at": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "committed_bytes": record.progress.committed_bytes,
        "reason": reason,
        "message": why,
    }
    store.set_facts(record.id, epoch, **{INTERRUPTIONS: [*known, line][-_KEPT:]})


def note_silent_end(store: StateStore, record: MigrationRecord, epoch: int) -> None:
    """Remember that the last attempt ended without a word, if it did.

    Args:
        store: The state database.
        record: As it was before the lease was taken for the next.
        epoch: Of the next.
    """
    known = record.facts.get(INTERRUPTIONS, ())
    told = bool(known) and known[-1]["attempt"] == record.epoch
    if record.epoch and not told:
        why = "its controller ended without a word"
        note_interruption(store, record, epoch, "CONTROLLER_DIED", why)


def seal_and_destroy_keys(store: StateStore, migration_id: str, seal: Seal | None) -> None:
    """The last act of a migration that has succeeded. Idempotent."""
    path = keys_path(store, migration_id)
    if not path.exists():
        return
    if seal is not None:
        # Without a signature the report is still true, and the keys go all the same.
        with contextlib.suppress(BlockferryError):
            authority = Authority.from_pem(path.read_bytes())
            store.keep_report(migration_id, seal(store.get(migration_id), authority))
    path.unlink(missing_ok=True)
