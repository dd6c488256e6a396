"""Durable execution of attempts: the only module that knows DBOS.

Rules:
* One attempt at a migration is one workflow, `<migration id>.<epoch>`. Its
  steps are checkpointed; a checkpointed step is not run again in that attempt.
* A dead controller's attempt is never recovered by another process on its own:
  every process has an executor id of its own, so that DBOS finds nothing of
  others to recover at launch. Taking over means a new attempt with a higher
  epoch (engine/state.py leases it), whose steps look for what is there already.
* Only short texts cross into the workflow's record: no secrets, no bulk.
"""

import threading
from collections.abc import Callable
from typing import Final, TypeAlias

import sqlalchemy as sa
from dbos import DBOS, SetWorkflowID

from blockferry import __version__

StepRunner: TypeAlias = Callable[[str, Callable[[], str]], str]
"""Runs a named step once, checkpoints the one line it returns, and returns it."""

Attempt: TypeAlias = Callable[[str, int, StepRunner], None]
"""Drives one attempt: migration id, epoch, and how to run its steps."""

_POLL_SECONDS: Final = 0.05

_attempts: Final[list[Attempt]] = []


@DBOS.workflow(name="attempt")
def _workflow(migration_id: str, epoch: int) -> str:
    """Runs an attempt; DBOS records how it ended."""

    def run_step(name: str, do: Callable[[], str]) -> str:
        return DBOS.run_step({"name": name}, do)

    _attempts[-1](migration_id, epoch, run_step)
    return "done"


class DurableEngine:
    """DBOS, launched on the state database; one per process.

    Args:
        database: The state database; DBOS keeps its own tables in it.
        executor_id: Unique to this process.
        attempt: What drives an attempt.
    """

    _one: Final = threading.Lock()

    def __init__(self, database: sa.Engine, executor_id: str, attempt: Attempt) -> None:
        if not self._one.acquire(blocking=False):
            raise RuntimeError("one DurableEngine a process")
        _attempts.append(attempt)
        DBOS(
            config={
                "name": "blockferry",
                # DBOS tells SQLite from PostgreSQL by the URL, and connects by the engine.
                "system_database_url": database.url.render_as_string(hide_password=False),
                "system_database_engine": database,
                "executor_id": executor_id,
                "application_version": __version__,
                # An attempt's error is raised to whoever runs it: raise or log, never both.
                "log_level": "CRITICAL",
                # Also how long destroy() waits for the listener to notice.
                "notification_listener_polling_interval_sec": _POLL_SECONDS,
            }
        )
        DBOS.launch()

    def run(self, migration_id: str, epoch: int) -> None:
        """Run an attempt to its end and raise what it raised."""
        with SetWorkflowID(f"{migration_id}.{epoch}"):
            handle = DBOS.start_workflow(_workflow, migration_id, epoch)
        handle.get_result(polling_interval_sec=_POLL_SECONDS)

    def close(self) -> None:
        """Stop DBOS. Idempotent."""
        if _attempts:
            DBOS.destroy()
            _attempts.clear()
            self._one.release()
