"""What happens to a migration, told to whoever shows or records it.

Events are told, never asked for: a listener cannot hold up or fail a migration.
"""

from collections.abc import Callable
from datetime import datetime, timezone
from typing import TypeAlias

from msgspec import Struct, field


def _now() -> datetime:
    return datetime.now(timezone.utc)


class Progress(Struct, frozen=True):
    """How far the bytes are; all counts in bytes, of finished work only.

    Attributes:
        phase: `copy` while bytes travel, `proof` while the medium is read back, `repair`
            while what differs there is sent again.
        size_bytes: The source's size.
        committed_bytes: Commit point of the sink; never decreases.
        data_bytes: Non-zero bytes of [0, size) handled, over all runs.
        zero_bytes: Zero bytes likewise.
        resumed_from_bytes: Where this run started, or met agents that had gone on alone.
        sent_bytes: Payload before compression, this run.
        wire_bytes: Payload after compression, this run.
        verified_bytes: Read back and found equal.
        reconnects: Broken connections survived in this run.
    """

    phase: str = "copy"
    size_bytes: int = 0
    committed_bytes: int = 0
    data_bytes: int = 0
    zero_bytes: int = 0
    resumed_from_bytes: int = 0
    sent_bytes: int = 0
    wire_bytes: int = 0
    verified_bytes: int = 0
    reconnects: int = 0


class StepStarted(Struct, frozen=True):
    """A step begins; `total` steps in all, this is number `index` from 1."""

    migration_id: str
    step: str
    index: int
    total: int
    time: datetime = field(default_factory=_now)


class StepFinished(Struct, frozen=True):
    """A step is done. `detail`: one line of what it found or made, may be empty."""

    migration_id: str
    step: str
    seconds: float
    detail: str = ""
    time: datetime = field(default_factory=_now)


class Progressed(Struct, frozen=True):
    """Bytes moved. At most twice a second."""

    migration_id: str
    progress: Progress
    time: datetime = field(default_factory=_now)


class Noted(Struct, frozen=True):
    """Something a person should know. `level`: `info` or `warning`."""

    migration_id: str
    level: str
    message: str
    time: datetime = field(default_factory=_now)


class Undone(Struct, frozen=True):
    """A resource was removed again, or (`kept`) left in place on purpose."""

    migration_id: str
    resource: str
    kept: bool = False
    time: datetime = field(default_factory=_now)


class Ended(Struct, frozen=True):
    """The attempt is over. `state` as in `blockferry list`."""

    migration_id: str
    state: str
    message: str = ""
    time: datetime = field(default_factory=_now)


Event: TypeAlias = StepStarted | StepFinished | Progressed | Noted | Undone | Ended
Listener: TypeAlias = Callable[[Event], None]
