"""Durable execution of attempts: the only module that knows DBOS.

Rules:
* One attempt at a migration is one workflow, `<migration id>.<epoch>`. Its
  steps are checkpointed; a checkpointed step is not run again in that attempt.
* A dead controller's attempt is never recovered by another process on its own:
  every launch has an executor id of its own, so that DBOS finds nothing to recover.
  Taking over means a new attempt with a higher epoch (engine/state.py leases it), whose
  steps look for what is there already.
* Only short texts cross into the workflow's record: no secrets, no bulk.
* Failures are not recorded: nobody would look, the migration's row has them, and DBOS tries to
  record without end while the database is away, which may be what failed.
* An attempt runs in the thread that asks for it: who drives many at once brings as many
  threads, and none of them polls the database for its end.
"""

import threading
import uuid
from collections.abc import Callable
from typing import Final, TypeVar

import sqlalchemy as sa
from dbos import DBOS, SetWorkflowID

from blockferry import __version__
from blockferry_controller.engine.attempt import Attempt

_POLL_SECONDS: Final = 0.05
T = TypeVar("T")

_attempts: Final[dict[str, Attempt]] = {}
"""What drives each workflow that runs in this process, by its id."""


@DBOS.workflow(name="attempt")
def _workflow(migration_id: str, epoch: int) -> str:
    """Runs an attempt; DBOS records that it went well."""

    def run_step(name: str, do: Callable[[], str]) -> str:
        return _unrecorded(lambda: DBOS.run_step({"name": name}, _past_dbos(do)))

    attempt = _attempts[_workflow_id(migration_id, epoch)]
    _past_dbos(lambda: attempt(migration_id, epoch, run_step))()
    return "done"


class _Failed(BaseException):
    """Carries a failure past DBOS, which records what is an Exception."""

    def __init__(self, error: Exception) -> None:
        super().__init__(error)
        self.error = error


def _past_dbos(do: Callable[[], T]) -> Callable[[], T]:
    """The same, whose failures `_unrecorded` raises."""

    def carried() -> T:
        try:
            return do()
        except Exception as error:
            raise _Failed(error) from error

    return carried


def _unrecorded(do: Callable[[], T]) -> T:
    try:
        return do()
    except _Failed as failed:
        error = failed.error
    try:
        # Out here it is raised as it was, without a word of how it came.
        raise error
    finally:
        # Else it holds this frame, which holds it, and with them all that the attempt had.
        del error


def _workflow_id(migration_id: str, epoch: int) -> str:
    return f"{migration_id}.{epoch}"


class DurableEngine:
    """An Engine: DBOS, launched on the state database; one per process.

    Args:
        database: The state database; DBOS keeps its own tables in it.
        executor_id: Unique to this process.
    """

    _one: Final = threading.Lock()

    def __init__(self, database: sa.Engine, executor_id: str) -> None:
        if not self._one.acquire(blocking=False):
            raise RuntimeError("one DurableEngine a process")
        self._open = True
        DBOS(
            config={
                "name": "blockferry",
                # DBOS tells SQLite from PostgreSQL by the URL, and connects by the engine.
                "system_database_url": database.url.render_as_string(hide_password=False),
                "system_database_engine": database,
                # Of this launch: what failed in an earlier one of this process stays as it is.
                "executor_id": f"{executor_id}/{uuid.uuid4().hex[:8]}",
                "application_version": __version__,
                # An attempt's error is raised to whoever runs it: raise or log, never both.
                "log_level": "CRITICAL",
                # Also how long destroy() waits for the listener to notice.
                "notification_listener_polling_interval_sec": _POLL_SECONDS,
            }
        )
        DBOS.launch()

    def run(self, migration_id: str, epoch: int, attempt: Attempt) -> None:
        """See Engine."""
        workflow = _workflow_id(migration_id, epoch)
        _attempts[workflow] = attempt
        try:
            with SetWorkflowID(workflow):
                _unrecorded(lambda: _workflow(migration_id, epoch))
        finally:
            _attempts.pop(workflow, None)

    def close(self) -> None:
        """See Engine."""
        if self._open:
            self._open = False
            DBOS.destroy()
            self._one.release()
