"""A migration as the state database remembers it."""

from datetime import datetime
from enum import Enum
from typing import Any

from msgspec import Struct, field

from blockferry_controller.engine.requests import Wants
from blockferry_controller.events import Progress
from blockferry_controller.spec import Spec


class State(str, Enum):
    """Where a migration is; the words of `blockferry list` (contract)."""

    PENDING = "PENDING"
    WAITING = "WAITING"
    RUNNING = "RUNNING"
    PAUSED = "PAUSED"
    INTERRUPTED = "INTERRUPTED"
    SUCCEEDED = "SUCCEEDED"
    FAILED = "FAILED"
    CANCELLED = "CANCELLED"

    @property
    def final(self) -> bool:
        """Whether nothing more will ever happen to it."""
        return self in (State.SUCCEEDED, State.CANCELLED)

    @property
    def over(self) -> bool:
        """Whether an attempt has ended, and no other has begun."""
        return self in (State.SUCCEEDED, State.FAILED, State.CANCELLED, State.INTERRUPTED)


class StepRecord(Struct, frozen=True):
    """One finished step of one attempt (`epoch`)."""

    epoch: int
    name: str
    seconds: float
    detail: str


class MigrationRecord(Struct, frozen=True):
    """One migration.

    Attributes:
        state: One of State's words. A migration whose controller died without a
            word, paused or not, reads INTERRUPTED, whatever is written.
        source, destination: For people: `east/data-1`, or a path.
        size_bytes: Of the source; 0 until preflight knows it.
        epoch: Number of attempts so far; 0 before the first.
        facts: Ids, names and choices worth keeping, by name.
        error: reason, message, metadata and exit_code of the last failure.
        result: The document that `-o json` prints (contract), once there is one.
        wants: What people want of it; like `steps`, read only for one migration.
    """

    id: str
    kind: str
    state: str
    spec: Spec
    source: str
    destination: str
    size_bytes: int
    epoch: int
    created_at: datetime
    updated_at: datetime
    ended_at: datetime | None
    progress: Progress = field(default_factory=Progress)
    facts: dict[str, Any] = field(default_factory=dict)
    steps: tuple[StepRecord, ...] = ()
    message: str = ""
    error: dict[str, Any] | None = None
    result: dict[str, Any] | None = None
    wants: Wants = field(default_factory=Wants)

    @property
    def attempts(self) -> int:
        """How often it was started or taken over."""
        return self.epoch
