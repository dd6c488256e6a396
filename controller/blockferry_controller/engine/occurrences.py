"""What happens to migrations, volumes and fleets, as it is written down and told to others.

Rules:
* A class is a kind of event, its name in lower case with underscores is the event's word, its
  fields are the event's `data`; docs/hooks.md describes each, and a test compares the two.
* Words and names are a contract: new ones may come, none goes.
* Values are plain JSON. Nothing secret is among them: they are kept, shown and sent.
"""

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Final, TypeAlias, get_args

# --- a migration, whoever it belongs to -----------------------------------------------


@dataclass(frozen=True, slots=True)
class Created:
    """A migration was made; nothing has begun."""


@dataclass(frozen=True, slots=True)
class Started:
    """An attempt begins, the first or one that goes on. `attempt`: from 1."""

    attempt: int


@dataclass(frozen=True, slots=True)
class Paused:
    """Somebody paused it, and it holds."""

    attempt: int


@dataclass(frozen=True, slots=True)
class Resumed:
    """It goes on after a pause, in the same attempt."""

    attempt: int


@dataclass(frozen=True, slots=True)
class Copied:
    """All bytes are durable at the destination. `seconds`: of the copy in this attempt."""

    attempt: int
    seconds: float


@dataclass(frozen=True, slots=True)
class Verified:
    """The medium was read back and is the source's. `digest`: the root, `blake3:<hex>`."""

    attempt: int
    digest: str


@dataclass(frozen=True, slots=True)
class Ended:
    """An attempt is over.

    Attributes:
        state: SUCCEEDED, FAILED, INTERRUPTED or CANCELLED.
        reason: Stable word for what it failed of; empty otherwise.
        message: The same for people.
    """

    state: str
    reason: str
    message: str


# --- a volume of a fleet ----------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Waiting:
    """A volume that had begun waits again.

    Attributes:
        why: Word, as `blockferry show FLEET` has it.
        reason: The same for people.
        attempts: Tries in vain so far.
    """

    why: str
    reason: str
    attempts: int


@dataclass(frozen=True, slots=True)
class Succeeded:
    """A volume is through: moved, proven as asked, everything temporary removed."""


@dataclass(frozen=True, slots=True)
class Failed:
    """A volume has failed, and the fleet tries it no more. Fields as of Waiting."""

    why: str
    reason: str
    attempts: int


@dataclass(frozen=True, slots=True)
class Skipped:
    """Somebody left a volume out. `reason`: in their words."""

    reason: str


@dataclass(frozen=True, slots=True)
class Cancelled:
    """A volume was ended for good, what it had made is removed."""


@dataclass(frozen=True, slots=True)
class Requeued:
    """Somebody put a volume that had failed back among those that wait."""


# --- a fleet ----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Planned:
    """The fleet was made from its plan; nothing has begun. Sizes are of all its volumes."""

    volumes: int
    size_bytes: int


@dataclass(frozen=True, slots=True)
class Driven:
    """A process begins to drive the fleet."""


@dataclass(frozen=True, slots=True)
class Held:
    """Nothing begins: a window, a gate, a breaker or a person holds it.

    Attributes:
        why: WINDOW, GATE, BREAKER or PAUSED.
        reason: What it waits for, for people.
        volumes: How many wait.
    """

    why: str
    reason: str
    volumes: int


@dataclass(frozen=True, slots=True)
class Asked:
    """Somebody left word. `want`: what for; `value`: null takes it back."""

    want: str
    value: Any


@dataclass(frozen=True, slots=True)
class WaveDone:
    """Every volume of a wave is in a final state; again when one was put back.

    Attributes:
        counts: Volumes by state.
    """

    wave: str
    counts: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class FleetStopped:
    """Nobody drives the fleet any more, and something is left to do.

    Attributes:
        state: INTERRUPTED, or WAITING when a person is needed.
    """

    state: str
    message: str


@dataclass(frozen=True, slots=True)
class FleetDone:
    """The fleet is over.

    Attributes:
        state: SUCCEEDED, FAILED (some volumes; they can be retried) or CANCELLED.
        counts: Volumes by state.
    """

    state: str
    message: str
    counts: Mapping[str, int]


OfMigration: TypeAlias = Created | Started | Paused | Resumed | Copied | Verified | Ended
OfVolume: TypeAlias = Waiting | Succeeded | Failed | Skipped | Cancelled | Requeued
OfFleet: TypeAlias = Planned | Driven | Held | Asked | WaveDone | FleetStopped | FleetDone
Occurrence: TypeAlias = OfMigration | OfVolume | OfFleet

WORDS: Final[dict[type, str]] = {
    kind: re.sub(r"(?<!^)(?=[A-Z])", "_", kind.__name__).lower() for kind in get_args(Occurrence)
}
"""The word of each kind of event."""


def word(of: Occurrence) -> str:
    """The event's word."""
    return WORDS[type(of)]


def data(of: Occurrence) -> dict[str, Any]:
    """The event's fields as plain types."""
    return asdict(of)
