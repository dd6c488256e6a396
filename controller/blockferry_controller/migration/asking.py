"""Asking a migration that another process drives: hold, go on, be slower, end.

The word is left in the state database (engine/requests.py); the driving
controller reads it once a second and acts (steps/steer.py). What is asked here
is waited for, but never for long: it holds also when nobody waits.
"""

import threading
import time
from typing import Final

from blockferry.errors import BusyError, PreconditionError
from blockferry_controller.engine.records import MigrationRecord, State
from blockferry_controller.engine.requests import Request, Value, Want
from blockferry_controller.engine.state import StateStore

ANSWER_SECONDS: Final = 10.0
"""Longest wait for an answer: the driver looks once a second, an agent answers in one."""
CANCEL_SECONDS: Final = 120.0
"""Longest wait for a cancelled migration to be undone."""
_LOOK_SECONDS: Final = 0.2


class Asking:
    """Leaves word for whoever drives a migration, and waits for what becomes of it.

    Args:
        store: The state database.
        stop: Set when the person who asked does not want to wait any more.
        answer_seconds: Longest wait for an answer.
    """

    def __init__(
        self,
        store: StateStore,
        stop: threading.Event | None = None,
        *,
        answer_seconds: float = ANSWER_SECONDS,
    ) -> None:
        self._store = store
        self._stop = stop or threading.Event()
        self._answer_seconds = answer_seconds

    def pause(self, migration_id: str) -> Request:
        """Have a running migration send nothing until `go_on`.

        Returns:
            The request; unanswered when no bytes move yet: it holds when they would.

        Raises:
            PreconditionError: MIGRATION_ENDED, NOT_RUNNING, NOTHING_TO_PAUSE.
        """
        record = _refuse_ended(self._store.get(migration_id))
        if not self._store.driven(record.id):
            raise PreconditionError(
                "NOT_RUNNING",
                f"nobody drives migration {record.id} ({record.state}), so nothing moves; "
                f"`blockferry resume {record.id}` goes on with it",
                migration=record.id,
            )
        request = self._ask(record.id, Want.PAUSED, value=True)
        if request.answer:
            raise PreconditionError(
                "NOTHING_TO_PAUSE",
                f"migration {record.id} cannot be paused: {request.answer}",
                migration=record.id,
            )
        return request

    def is_held(self, migration_id: str) -> bool:
        """Whether somebody drives it who was asked to hold: `go_on` is what it needs."""
        record = self._store.get(migration_id)
        return record.wants.paused and self._store.driven(record.id)

    def go_on(self, migration_id: str) -> Request:
        """Have a paused migration send again."""
        return self._ask(self._store.get(migration_id).id, Want.PAUSED, value=False)

    def limit(self, migration_id: str, bytes_per_second: int) -> Request:
        """Have it keep to a limit from now on, or from its next attempt.

        Args:
            migration_id: An id or its beginning.
            bytes_per_second: On the wire; 0 is unlimited.

        Raises:
            PreconditionError: MIGRATION_ENDED.
        """
        record = _refuse_ended(self._store.get(migration_id))
        return self._ask(record.id, Want.LIMIT, bytes_per_second)

    def cancel(self, migration_id: str) -> MigrationRecord:
        """Have its driver undo it, and wait until it has.

        Raises:
            BusyError: CANCEL_PENDING, it has not within CANCEL_SECONDS.
        """
        self._store.requests.ask(migration_id, Want.CANCELLED, value=True)
        deadline = time.monotonic() + CANCEL_SECONDS
        while time.monotonic() < deadline and not self._stop.wait(_LOOK_SECONDS):
            record = self._store.get(migration_id)
            if State(record.state).final:
                return record
        raise BusyError(
            "CANCEL_PENDING",
            f"migration {migration_id} was asked to stop but has not yet; "
            f"see `blockferry show {migration_id}`",
            migration=migration_id,
        )

    def _ask(self, migration_id: str, want: Want, value: Value) -> Request:
        request = self._store.requests.ask(migration_id, want, value)
        deadline = time.monotonic() + self._answer_seconds
        while request.answered_at is None and time.monotonic() < deadline:
            if not self._store.driven(migration_id) or self._stop.wait(_LOOK_SECONDS):
                break
            now = self._store.requests.read(migration_id).by_want.get(want)
            if now is None or now.value != value:
                # Somebody else has asked for something else since.
                break
            request = now
        return request


def _refuse_ended(record: MigrationRecord) -> MigrationRecord:
    if State(record.state).final:
        raise PreconditionError(
            "MIGRATION_ENDED",
            f"migration {record.id} has ended already ({record.state})",
            migration=record.id,
        )
    return record
