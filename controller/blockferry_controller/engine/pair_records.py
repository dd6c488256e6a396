"""Pairs of instances that volumes of a fleet share, as they are read; see pairs.py."""

from collections.abc import Mapping
from datetime import datetime
from enum import Enum
from typing import Any

from msgspec import Struct


class PairState(str, Enum):
    """Where a pair is; see pairs.py."""

    FREE = "FREE"
    """Open, and nobody is in."""
    TAKEN = "TAKEN"
    """Open, and somebody is in."""
    DRAINING = "DRAINING"
    """Closed, and somebody is in."""
    ENDING = "ENDING"
    """Closed, and nobody is in: what it has is being deleted."""
    ENDED = "ENDED"


class LaneRecord(Struct, frozen=True):
    """One lane.

    Attributes:
        number: From 0 on.
        migration_id: Who has it; empty while nobody does.
        taken_in: That migration's epoch when it took the lane.
        epoch: Of the identities that its agents have; 0 before it was ever taken.
        served: Migrations that have given it back.
        condemned: The instance that who has it finds of no use; empty: none.
        changed_at: When it was last taken or left, UTC.
    """

    number: int
    migration_id: str
    taken_in: int
    epoch: int
    served: int
    condemned: str
    changed_at: datetime


class PairRecord(Struct, frozen=True):
    """One pair.

    Attributes:
        id: Of the form of a migration's id; in tags in its place.
        fleet_id: Whose volumes it serves.
        source, destination: Clouds, as in clouds.yaml.
        fit: What it was made of; only who wants the same may take a lane.
        booting: The migration that makes or replaces its instances now; empty: none.
        facts: What whoever takes a lane need not find out again.
        lanes: In order; none of a pair that an earlier version made.
    """

    id: str
    fleet_id: str
    source: str
    destination: str
    fit: str
    closed: bool
    ended: bool
    booting: str
    facts: Mapping[str, Any]
    made_at: datetime
    lanes: tuple[LaneRecord, ...] = ()

    @property
    def state(self) -> PairState:
        """What can be said of it in a word."""
        if self.ended:
            return PairState.ENDED
        if self.closed:
            return PairState.DRAINING if self.guests else PairState.ENDING
        return PairState.TAKEN if self.guests else PairState.FREE

    @property
    def guests(self) -> tuple[LaneRecord, ...]:
        """Lanes that somebody has."""
        return tuple(lane for lane in self.lanes if lane.migration_id)

    @property
    def room(self) -> int:
        """How many may still take a lane."""
        return 0 if self.closed or self.ended else len(self.lanes) - len(self.guests)

    @property
    def served(self) -> int:
        """Migrations that have given a lane back."""
        return sum(lane.served for lane in self.lanes)

    @property
    def changed_at(self) -> datetime:
        """When somebody last came or went."""
        return max((lane.changed_at for lane in self.lanes), default=self.made_at)

    def lane_id(self, number: int) -> str:
        """What the lane's certificates and keys name."""
        return f"{self.id}-{number}"


class Held(Struct, frozen=True):
    """A lane that a migration has, and its pair as it was then."""

    pair: PairRecord
    number: int

    @property
    def id(self) -> str:
        """The lane's."""
        return self.pair.lane_id(self.number)

    @property
    def lane(self) -> LaneRecord:
        """Its row."""
        return self.pair.lanes[self.number]

    @property
    def epoch(self) -> int:
        """Of the identities that its agents are to have."""
        return self.lane.epoch

    @property
    def others(self) -> tuple[LaneRecord, ...]:
        """Who else is in the pair."""
        return tuple(lane for lane in self.pair.guests if lane.number != self.number)
