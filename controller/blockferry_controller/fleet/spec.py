"""What a fleet file says, complete and frozen; plain data that knows no file and no cloud.

Rules of selection:
* `ids` and `names` say which volumes are meant: one of them is enough. Every other key
  narrows that down: all of them must hold. Lists offer alternatives.
* Names, types, zones, metadata and mapping rules match as in a shell: `*`, `?`, `[ab]`,
  upper and lower case told apart.
"""

from collections.abc import Mapping
from datetime import time
from enum import Enum

from msgspec import Struct, field

from blockferry_controller.spec import Verify

DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")


class Condition(Struct, frozen=True):
    """Which volumes; one without any key is met by all.

    Attributes:
        projects: Ids of the projects that own the volume.
        metadata: Pattern of the value by key; the key must be there.
        size_least_bytes, size_most_bytes: Inclusive; 0 for no bound.
        instances: Ids of instances that the volume is attached to.
    """

    ids: tuple[str, ...] = ()
    names: tuple[str, ...] = ()
    projects: tuple[str, ...] = ()
    types: tuple[str, ...] = ()
    zones: tuple[str, ...] = ()
    metadata: Mapping[str, str] = field(default_factory=dict)
    size_least_bytes: int = 0
    size_most_bytes: int = 0
    instances: tuple[str, ...] = ()


class Unmapped(str, Enum):
    """What becomes of a volume that no rule of a mapping matches."""

    FAIL = "fail"
    DEFAULT = "default"


class Rule(Struct, frozen=True):
    """What matches `match` becomes `to`; the first rule of a list that does, wins.

    Attributes:
        where: Conditions on the volume, besides.
        to: May hold {name}, {id}, {type}, {zone}: those of the source volume.
    """

    match: str
    to: str
    where: Condition = field(default_factory=Condition)


class MetadataRule(Struct, frozen=True):
    """A key that matches becomes `to` with `value`, or is dropped.

    Attributes:
        to: New key; may hold {key}.
        value: New value; may hold {value} and what Rule.to may hold.
    """

    match: str
    to: str = "{key}"
    value: str = "{value}"
    drop: bool = False


class Renaming(Struct, frozen=True):
    """The rules for one thing, types for example."""

    rules: tuple[Rule, ...] = ()
    unmapped: Unmapped = Unmapped.DEFAULT


class Mappings(Struct, frozen=True):
    """What things of the source become at the destination.

    Attributes:
        set_metadata: Added to every volume after the rules for metadata.
    """

    types: Renaming = field(default_factory=Renaming)
    zones: Renaming = field(default_factory=Renaming)
    names: Renaming = field(default_factory=Renaming)
    metadata: tuple[MetadataRule, ...] = ()
    set_metadata: Mapping[str, str] = field(default_factory=dict)


class Override(Struct, frozen=True):
    """What holds for one volume, whatever rules say. Empty, 0 or None: nothing said.

    Attributes:
        skip: Why it is left out, in words.
        priority: Higher goes first within its wave.
    """

    type: str = ""
    zone: str = ""
    name: str = ""
    size_bytes: int = 0
    metadata: Mapping[str, str] = field(default_factory=dict)
    wave: str = ""
    priority: int = 0
    skip: str = ""
    verify: Verify | None = None


class CloudLimits(Struct, frozen=True):
    """What may go on in one cloud at once.

    Attributes:
        concurrency: Volumes at a time; 0 for no limit but the fleet's.
        bandwidth_bytes_per_second: In or out, on the wire; 0 for no limit.
        types: Volumes of one type (which is one backend) at a time, by its name.
    """

    concurrency: int = 0
    bandwidth_bytes_per_second: int = 0
    types: Mapping[str, int] = field(default_factory=dict)


DEFAULT_CONCURRENCY = 4


class Limits(Struct, frozen=True):
    """What may go on at once. `clouds` by their names.

    Attributes:
        pairs: Pairs of instances, which volumes share; 0: each has its own.
        lanes: Volumes that a pair serves side by side.
    """

    concurrency: int = DEFAULT_CONCURRENCY
    bandwidth_bytes_per_second: int = 0
    clouds: Mapping[str, CloudLimits] = field(default_factory=dict)
    pairs: int = 0
    lanes: int = 1

    @property
    def at_once(self) -> int:
        """Volumes at a time, whatever clouds say."""
        return min(self.concurrency, self.pairs * self.lanes or self.concurrency)


class Pool(Struct, frozen=True):
    """Pairs of instances that volumes share.

    Attributes:
        most: At a time.
        idle_seconds: One that nobody has been in for so long is deleted.
        lanes: Volumes that each serves side by side; as many again after them.
        least: So many are kept without regard to that, while volumes are left; see fleet.pool.
    """

    most: int
    idle_seconds: int
    lanes: int = 1
    least: int = 0


class AtEnd(str, Enum):
    """What happens to running volumes when a window closes."""

    PAUSE = "pause"
    RUN_OUT = "run-out"


class Opening(Struct, frozen=True):
    """A time of the week; `until` at or before `since` is on the next day.

    Attributes:
        days: Of its beginning, 0 for Monday.
    """

    days: tuple[int, ...]
    since: time
    until: time


class Windows(Struct, frozen=True):
    """When volumes may move; without openings: always.

    Attributes:
        last_start_seconds: So long before the end, nothing new begins.
    """

    time_zone: str = "UTC"
    openings: tuple[Opening, ...] = ()
    at_end: AtEnd = AtEnd.PAUSE
    last_start_seconds: int = 0


class Gate(Struct, frozen=True):
    """What must hold before a wave begins, besides that the one before has ended.

    Attributes:
        approval: A person must approve it.
        failures_below: Share of the wave before that may have failed, exclusive; None
            for any.
    """

    approval: bool = False
    failures_below: float | None = None


class Wave(Struct, frozen=True):
    """Volumes that go together. The first wave whose condition holds takes a volume."""

    name: str
    select: Condition = field(default_factory=Condition)
    gate: Gate = field(default_factory=Gate)


class Breaker(Struct, frozen=True):
    """Stops a wave when `failures` volumes fail of one reason within `within_seconds`."""

    failures: int = 3
    within_seconds: int = 600


class Hook(Struct, frozen=True):
    """Who is told what happens: a command or a web server, one of both.

    Attributes:
        name: Unique in the fleet.
        on: Events, see engine/occurrences.py; none: all.
        command: Its words; not empty for a command.
        url: http or https.
        secret_file: What signs; empty: nothing is signed.
        timeout_seconds: Of one try.
        attempts: Tries of an event.
    """

    name: str
    on: tuple[str, ...] = ()
    command: tuple[str, ...] = ()
    url: str = ""
    secret_file: str = ""
    timeout_seconds: int = 10
    attempts: int = 5


class Fleet(Struct, frozen=True):
    """A fleet file.

    Attributes:
        name: Also the fleet's id: the same name goes on with the same fleet.
        source, destination: Clouds, as in clouds.yaml.
        overrides: By id or name of the volume.
        attempts: How often a volume is tried when what failed may be passing.
        verify, compression, channels: None, empty, 0: as configured.
        pool: None: each volume has a pair of its own.
    """

    name: str
    source: str
    destination: str
    select: Condition
    exclude: tuple[Condition, ...] = ()
    mappings: Mappings = field(default_factory=Mappings)
    overrides: Mapping[str, Override] = field(default_factory=dict)
    limits: Limits = field(default_factory=Limits)
    windows: Windows = field(default_factory=Windows)
    waves: tuple[Wave, ...] = (Wave("all"),)
    breaker: Breaker = field(default_factory=Breaker)
    attempts: int = 2
    verify: Verify | None = None
    compression: str = ""
    channels: int = 0
    allow_downgrade: bool = False
    skip_checks: tuple[str, ...] = ()
    hooks: tuple[Hook, ...] = ()
    pool: Pool | None = None
