"""What happens to migrations, volumes and fleets, as it is written down and told to others.

Rules:
* A class is a kind of event, its name in lower case with underscores is the event's word, its
  fields are the event's `data`; docs/hooks.md describes each, and a test compares the two.
* Words and names are a contract: new ones may come, none goes.
* Values are plain JSON. Nothing secret is among them: they are kept, shown and sent.
"""

import re
from collections.abc import Mapping
from typing import Any, Final, TypeAlias, get_args

from msgspec import Struct
from msgspec.structs import asdict

# --- a migration, whoever it belongs to -----------------------------------------------


class Created(Struct, frozen=True):
    """A migration was made; nothing has begun."""


class Started(Struct, frozen=True):
    """An attempt begins, the first or one that goes on. `attempt`: from 1."""

    attempt: int


class Paused(Struct, frozen=True):
    """Somebody paused it, and it holds."""

    attempt: int


class Resumed(Struct, frozen=True):
    """It goes on after a pause, in the same attempt."""

    attempt: int


class Copied(Struct, frozen=True):
    """All bytes are durable at the destination. `seconds`: of the copy in this attempt."""

    attempt: int
    seconds: float


class Verified(Struct, frozen=True):
    """The medium was read back and is the source's. `digest`: the root, `blake3:<hex>`."""

    attempt: int
    digest: str


class Ended(Struct, frozen=True):
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


class Waiting(Struct, frozen=True):
    """A volume that had begun waits again.

    Attributes:
        why: Word, as `blockferry show FLEET` has it.
        reason: The same for people.
        attempts: Tries in vain so far.
    """

    why: str
    reason: str
    attempts: int


class Succeeded(Struct, frozen=True):
    """A volume is through: moved, proven as asked, everything temporary removed."""


class Failed(Struct, frozen=True):
    """A volume has failed, and the fleet tries it no more. Fields as of Waiting."""

    why: str
    reason: str
    attempts: int


class Skipped(Struct, frozen=True):
    """Somebody left a volume out. `reason`: in their words."""

    reason: str


class Cancelled(Struct, frozen=True):
    """A volume was ended for good, what it had made is removed."""


class Requeued(Struct, frozen=True):
    """Somebody put a volume that had failed back among those that wait."""


# --- a fleet ----------------------------------------------------------------------------


class Planned(Struct, frozen=True):
    """The fleet was made from its plan; nothing has begun. Sizes are of all its volumes."""

    volumes: int
    size_bytes: int


class Driven(Struct, frozen=True):
    """A process begins to drive the fleet."""


class Held(Struct, frozen=True):
    """Nothing begins: a window, a gate, a breaker or a person holds it.

    Attributes:
        why: WINDOW, GATE, BREAKER or PAUSED.
        reason: What it waits for, for people.
        volumes: How many wait.
    """

    why: str
    reason: str
    volumes: int


class Asked(Struct, frozen=True):
    """Somebody left word. `want`: what for; `value`: null takes it back."""

    want: str
    value: Any


class WaveDone(Struct, frozen=True):
    """Every volume of a wave is in a final state; again when one was put back.

    Attributes:
        counts: Volumes by state.
    """

    wave: str
    counts: Mapping[str, int]


class FleetStopped(Struct, frozen=True):
    """Nobody drives the fleet any more, and something is left to do.

    Attributes:
        state: INTERRUPTED, or WAITING when a person is needed.
    """

    state: str
    message: str


class FleetDone(Struct, frozen=True):
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
