"""Every error of Blockferry, and what it means on the wire and to the shell.

    BlockferryError                    status               retry  exit
    ├── InternalError                  INTERNAL             no     1
    ├── UsageError                     INVALID_ARGUMENT     no     2
    ├── FleetError                     UNKNOWN              no     3
    ├── AuthenticationError            UNAUTHENTICATED      no     10
    ├── ForbiddenError                 PERMISSION_DENIED    no     10
    ├── NotFoundError                  NOT_FOUND            no     11
    ├── PreconditionError              FAILED_PRECONDITION  no     12
    ├── BusyError                      ABORTED              no     13
    ├── CapacityError                  RESOURCE_EXHAUSTED   no     14
    ├── UnreachableError               UNAVAILABLE          yes    16
    ├── DeadlineError                  DEADLINE_EXCEEDED    yes    17
    ├── IntegrityError                 DATA_LOSS            no     20
    ├── DeviceError                    DATA_LOSS            no     20
    └── CancelledError                 CANCELLED            no     130

A class above is what code reacts to. Each is raised with a `reason`, which is
what machines and tests tell errors of one class apart by, a `message` for
people (what happened, to what, what to do next) and the values behind it.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import ClassVar, Final


class Status(Enum):
    """gRPC status codes, by their number in grpc/doc/statuscodes.md."""

    CANCELLED = 1
    UNKNOWN = 2
    INVALID_ARGUMENT = 3
    DEADLINE_EXCEEDED = 4
    NOT_FOUND = 5
    PERMISSION_DENIED = 7
    RESOURCE_EXHAUSTED = 8
    FAILED_PRECONDITION = 9
    ABORTED = 10
    INTERNAL = 13
    UNAVAILABLE = 14
    DATA_LOSS = 15
    UNAUTHENTICATED = 16


@dataclass(frozen=True, slots=True)
class Meaning:
    """One row of the table: what an error class is elsewhere.

    Attributes:
        status: The gRPC status it travels as.
        retryable: Whether the same call may succeed later with nothing changed.
        exit_code: What the process exits with when it reaches the user.
    """

    status: Status
    retryable: bool
    exit_code: int


class BlockferryError(Exception):
    """Base of everything that Blockferry raises on purpose; never raised itself.

    Attributes:
        reason: Upper snake case, stable: part of the contract.
        message: For people; never holds a secret.
        metadata: The values behind the message.
    """

    meaning: ClassVar[Meaning]

    def __init__(self, reason: str, message: str, **metadata: object) -> None:
        super().__init__(message)
        self.reason: Final = reason
        self.message: Final = message
        self.metadata: Final = {key: str(value) for key, value in metadata.items()}

    def __reduce__(self) -> tuple[object, ...]:
        """Pickle with all parts: durable execution stores errors."""
        return _rebuild, (type(self), self.reason, self.message, self.metadata)


def _rebuild(
    cls: type[BlockferryError], reason: str, message: str, metadata: dict[str, str]
) -> BlockferryError:
    return cls(reason, message, **metadata)


class InternalError(BlockferryError):
    """A defect of ours."""

    meaning = Meaning(Status.INTERNAL, retryable=False, exit_code=1)


class UsageError(BlockferryError):
    """The caller gave a value that cannot be meant."""

    meaning = Meaning(Status.INVALID_ARGUMENT, retryable=False, exit_code=2)


class FleetError(BlockferryError):
    """Part of a fleet failed; the report says which."""

    meaning = Meaning(Status.UNKNOWN, retryable=False, exit_code=3)


class AuthenticationError(BlockferryError):
    """Nobody knows the caller: wrong password, no or a foreign certificate."""

    meaning = Meaning(Status.UNAUTHENTICATED, retryable=False, exit_code=10)


class ForbiddenError(BlockferryError):
    """The caller is known and may not."""

    meaning = Meaning(Status.PERMISSION_DENIED, retryable=False, exit_code=10)


class NotFoundError(BlockferryError):
    """What was named does not exist."""

    meaning = Meaning(Status.NOT_FOUND, retryable=False, exit_code=11)


class PreconditionError(BlockferryError):
    """It exists but is in a state that forbids this: attached, too small, mounted."""

    meaning = Meaning(Status.FAILED_PRECONDITION, retryable=False, exit_code=12)


class BusyError(BlockferryError):
    """Somebody else is at work on it."""

    meaning = Meaning(Status.ABORTED, retryable=False, exit_code=13)


class CapacityError(BlockferryError):
    """A quota or the space is used up."""

    meaning = Meaning(Status.RESOURCE_EXHAUSTED, retryable=False, exit_code=14)


class UnreachableError(BlockferryError):
    """No answer from an API or an agent."""

    meaning = Meaning(Status.UNAVAILABLE, retryable=True, exit_code=16)


class DeadlineError(BlockferryError):
    """It answered, but made no progress in the time given."""

    meaning = Meaning(Status.DEADLINE_EXCEEDED, retryable=True, exit_code=17)


class IntegrityError(BlockferryError):
    """Bytes are not what they must be."""

    meaning = Meaning(Status.DATA_LOSS, retryable=False, exit_code=20)


class DeviceError(BlockferryError):
    """The kernel refused a read, write or flush."""

    meaning = Meaning(Status.DATA_LOSS, retryable=False, exit_code=20)


class CancelledError(BlockferryError):
    """A person or signal asked to stop."""

    meaning = Meaning(Status.CANCELLED, retryable=False, exit_code=130)


CLASSES: Final[tuple[type[BlockferryError], ...]] = (
    InternalError,
    UsageError,
    FleetError,
    AuthenticationError,
    ForbiddenError,
    NotFoundError,
    PreconditionError,
    BusyError,
    CapacityError,
    UnreachableError,
    DeadlineError,
    IntegrityError,
    DeviceError,
    CancelledError,
)
"""All classes, in the order of the table above. A test holds both together."""

DEVICE_REASON_PREFIX: Final = "DEVICE_IO_"
"""Reasons of DeviceError begin so; it shares its status with IntegrityError."""


def from_wire(
    status: Status, reason: str, message: str, metadata: dict[str, str]
) -> BlockferryError:
    """Rebuild the error that crossed the wire.

    Statuses that several classes share are told apart by `reason`; statuses
    that no class has (a foreign server's) become InternalError.
    """
    if status is Status.DATA_LOSS:
        cls: type[BlockferryError] = (
            DeviceError if reason.startswith(DEVICE_REASON_PREFIX) else IntegrityError
        )
    else:
        matching = [cls for cls in CLASSES if cls.meaning.status is status]
        cls = matching[0] if matching else InternalError
    return cls(reason, message, **metadata)
