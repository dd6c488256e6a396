"""What came of an attempt: its state, its result for programs, a word to who listens.

Of an attempt it is written only while no later one has begun.
"""

from contextlib import suppress
from typing import Any, Final

from blockferry.errors import BlockferryError
from blockferry_controller.engine.away import AWAY, STATE_AWAY
from blockferry_controller.engine.records import MigrationRecord, State
from blockferry_controller.engine.state import StateStore
from blockferry_controller.events import Ended, Listener, Progress
from blockferry_controller.migration.context import CANCEL_REQUESTED, INTERRUPTED, LEASE_LOST
from blockferry_controller.migration.ending import Seal, note_interruption, seal_and_destroy_keys
from blockferry_controller.migration.steps.repair import repaired

_STATES: Final = {
    INTERRUPTED: State.INTERRUPTED,
    CANCEL_REQUESTED: State.CANCELLED,
    **dict.fromkeys(STATE_AWAY, State.INTERRUPTED),
}
"""Where it is no failure; whoever resumes it goes on."""


class Results:
    """Of the migrations of one state. Thread-safe."""

    def __init__(self, store: StateStore, listener: Listener, seal: Seal | None) -> None:
        self._store, self._listener, self._seal = store, listener, seal

    def succeed(self, migration_id: str, epoch: int, seconds: float) -> None:
        """All is done; the report is signed, and the keys are destroyed."""
        record = self._store.get(migration_id)
        result = result_document(record, State.SUCCEEDED, seconds)
        if not self._store.set_state(migration_id, State.SUCCEEDED, result=result, epoch=epoch):
            return
        seal_and_destroy_keys(self._store, migration_id, self._seal)
        self._listener(Ended(migration_id, State.SUCCEEDED.value))

    def fail(self, migration_id: str, epoch: int, error: BlockferryError, seconds: float) -> None:
        """The attempt has ended of `error`; what is another controller's now is left alone."""
        record = self._store.get(migration_id)
        if error.reason == LEASE_LOST or record.epoch != epoch:
            return
        state = _STATES.get(error.reason, State.FAILED)
        told = {
            "reason": error.reason,
            "message": error.message,
            "metadata": error.metadata,
            "exit_code": error.meaning.exit_code,
        }
        with suppress(*AWAY):
            # Its state is worth more patience than a line for the report.
            note_interruption(self._store, record, epoch, error.reason, error.message)
        result = result_document(record, state, seconds) | {"error": told}
        self._store.set_state(
            migration_id, state, message=error.message, error=told, result=result, epoch=epoch
        )
        self._listener(Ended(migration_id, state.value, error.message))

    def cancel(self, migration_id: str, epoch: int) -> bool:
        """Nothing is left of it, by somebody's wish; False when a later attempt has begun."""
        message, state = "cancelled", State.CANCELLED
        done = self._store.set_state(migration_id, state, message=message, epoch=epoch)
        if done:
            self._listener(Ended(migration_id, state.value, message))
        return done


def result_document(record: MigrationRecord, state: State, seconds: float) -> dict[str, Any]:
    """What `-o json` prints of an attempt (contract, design §8)."""
    progress: Progress = record.progress
    return {
        "id": record.id,
        "state": state.value,
        "source": record.source,
        "destination": record.destination,
        "source_volume_id": record.facts.get("source_volume_id", ""),
        "destination_volume_id": record.facts.get("destination_volume_id", ""),
        "size_bytes": record.size_bytes,
        "data_bytes": progress.data_bytes,
        "zero_bytes": progress.zero_bytes,
        "committed_bytes": progress.committed_bytes,
        "resumed_from_bytes": progress.resumed_from_bytes,
        "sent_bytes": progress.sent_bytes,
        "wire_bytes": progress.wire_bytes,
        "duration_seconds": round(seconds, 3),
        "verified": bool(record.facts.get("verified", False)) and state is State.SUCCEEDED,
        "verify": record.spec.transfer.verify.value,
        "digest": record.facts.get("digest", ""),
        **repaired(record.facts),
        "epoch": record.epoch,
        "not_carried": record.facts.get("not_carried", []),
        "rung": record.facts.get("rung", ""),
        "direction": record.facts.get("direction", ""),
        "peak_resident_bytes": record.facts.get("peak_resident_bytes", {}),
    }
