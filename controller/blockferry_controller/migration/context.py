"""Everything that one attempt at a migration works with.

A context lives as long as an attempt. What must outlive it goes to the state
database through `remember`, or is in the clouds' own tags.
"""

import math
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Final, TypeVar

from msgspec import Struct, field

from blockferry.errors import BusyError, CancelledError
from blockferry.identity import Identity, Role
from blockferry.limits import AGENT_PORT
from blockferry.v1 import agent_pb2
from blockferry_controller.agents.exchange import Exchange, Exchanges
from blockferry_controller.agents.port import Agent, Dial
from blockferry_controller.agents.relay import Relay
from blockferry_controller.clouds.fenced import fenced
from blockferry_controller.clouds.port import (
    Access,
    Cloud,
    Flavor,
    FloatingIp,
    Image,
    Network,
    Port,
    Server,
    Tag,
    Volume,
    VolumeType,
)
from blockferry_controller.engine.away import AWAY
from blockferry_controller.engine.pair_records import Held
from blockferry_controller.engine.requests import Wants
from blockferry_controller.engine.state import StateStore
from blockferry_controller.events import Event, Listener, Noted, Progress
from blockferry_controller.migration.authority import Authority
from blockferry_controller.migration.ending import keys_path
from blockferry_controller.migration.fidelity import Difference
from blockferry_controller.migration.prediction import Rates
from blockferry_controller.migration.ways import Way
from blockferry_controller.spec import Endpoint, Spec

T = TypeVar("T")

WANTS_SECONDS: Final = 1.0
"""The state database is asked for people's wants at most this often."""


class Side(Struct):
    """One end of the migration: its cloud, and what the steps found or made there.

    What is None has not been looked for in this attempt.

    Attributes:
        other_flavors: What to try next when the cloud refuses `flavor`, best first.
        volume_type, availability_zone: Chosen for the new volume; empty names mean the
            cloud's default.
        reached: Whether there has been an agent in this attempt, lost since or not.
        outward: What the outside sees the instance come from, where a router hides it.
        floating_ip: The instance's, while it has one.
        quota_left: What quotas left when they were asked for in this attempt; see Quota.
        look: What the agent saw at the beginning of its device; None where it was busy.
    """

    role: Role
    cloud: Cloud
    endpoint: Endpoint
    access: Access | None = None
    quota_left: dict[str, int | None] = field(default_factory=dict)
    volume_type: VolumeType | None = None
    availability_zone: str | None = None
    flavor: Flavor | None = None
    other_flavors: tuple[Flavor, ...] = ()
    look: agent_pb2.ProbeResult | None = None
    image: Image | None = None
    network: Network | None = None
    volume: Volume | None = None
    port: Port | None = None
    outward: tuple[str, ...] = ()
    floating_ip: FloatingIp | None = None
    server: Server | None = None
    agent: Agent | None = None
    agent_address: str = ""
    reached: bool = False

    @property
    def label(self) -> str:
        """For messages: `source` or `destination`."""
        return "source" if self.role is Role.SOURCE else "destination"

    @property
    def addresses(self) -> tuple[str, ...]:
        """All that lead to the instance, best first; empty before it has a port."""
        fixed = () if self.port is None else self.port.addresses
        return fixed if self.floating_ip is None else (*fixed, self.floating_ip.address)

    def take_flavor(self, other: Flavor) -> None:
        """Have `other` of `other_flavors` in place of `flavor`; those before it are no use."""
        left = self.other_flavors[self.other_flavors.index(other) + 1 :]
        self.flavor, self.other_flavors = other, left

    def tag(self, migration_id: str, what: str) -> Tag:
        """The tag of this side's `server`, `port`, `floating-ip` and so on."""
        return Tag(migration_id, f"{self.label}-{what}")


class SharedPair(Struct):
    """A lane of a pair of a fleet's pool, in the hands of this attempt.

    Attributes:
        held: As it was taken.
        authority: The lane's; set by step `authority`.
        touched: Whether anything was asked of its instances.
        vacated: Whether its agents have forgotten this migration.
        left: Whether it is in the hands of this attempt no more.
        turn: Both sides of this attempt take turns at what the pair's guests do by turns.
    """

    held: Held
    authority: Authority | None = None
    touched: bool = False
    vacated: bool = False
    left: bool = False
    turn: threading.Lock = field(default_factory=threading.Lock)

    @property
    def lanes(self) -> int:
        """Of the pair; agents of an instance."""
        return len(self.held.pair.lanes)


class Context(Struct):
    """One attempt.

    Attributes:
        stop: Set from outside to end the attempt in order.
        lost: Set when another controller has taken the migration over: nothing
            may be touched any more.
        renew_lease: Asks whether this controller still drives the migration.
        lapsed: Whether its lease has run out by its own clock; asks nobody.
        progress: Last known; saved by the copy.
        source_jobs: What each copy job did in this attempt, by its id, oldest first.
        met: Of copy jobs that outlived a former controller: how far they were when this attempt
            met them, by their ids; `resumed_from_bytes` is where the sink was then.
        not_carried: What describes the source and does not, or will not, the new volume.
        rates: As measured; None before, and where it was not worth it.
        differing: Ranges, [start, end) in bytes, that the sink has found not to be what was
            written, and that may be sent again; empty when all is well, or nothing may.
        way: How the agents reach each other, once they have proven it.
        exchanges: The ports of this process that agents are told to dial.
        exchange: Where those of this migration come to.
        relay: Carries the bytes, where the way is through this controller.
        paused: Whether its state says so.
        shared: The lane of a fleet's pair that serves this attempt; None: it makes a pair of
            its own.
    """

    migration_id: str
    epoch: int
    spec: Spec
    source: Side
    destination: Side
    store: StateStore
    listener: Listener
    dial: Dial
    stop: threading.Event = field(default_factory=threading.Event)
    lost: threading.Event = field(default_factory=threading.Event)
    renew_lease: Callable[[], bool] = lambda: True
    lapsed: Callable[[], bool] = lambda: False
    authority: Authority | None = None
    progress: Progress = field(default_factory=Progress)
    source_jobs: dict[str, agent_pb2.JobProgress] = field(default_factory=dict)
    met: dict[str, agent_pb2.JobProgress] = field(default_factory=dict)
    not_carried: tuple[Difference, ...] = ()
    rates: Rates | None = None
    way: Way | None = None
    exchanges: Exchanges = field(default_factory=Exchanges)
    exchange: Exchange | None = None
    relay: Relay | None = None
    differing: tuple[tuple[int, int], ...] = ()
    paused: bool = False
    shared: SharedPair | None = None
    _wants: Wants = field(default_factory=Wants)
    _wants_read_at: float = -math.inf

    def __post_init__(self) -> None:
        for side in self.sides:
            side.cloud = fenced(side.cloud, self.fence)

    @property
    def sides(self) -> tuple[Side, Side]:
        """Source and destination."""
        return self.source, self.destination

    @property
    def keys_path(self) -> Path:
        """File (0600) that holds the migration's authority while it runs."""
        return keys_path(self.store, self.migration_id)

    @property
    def pair_id(self) -> str:
        """What instances, ports and groups are tagged with.

        A pair that serves one migration has that migration's id, and one lane, which has
        that id, too, and the migration's epoch and authority.
        """
        return self.migration_id if self.shared is None else self.shared.held.pair.id

    @property
    def lane_id(self) -> str:
        """What certificates name."""
        return self.migration_id if self.shared is None else self.shared.held.id

    @property
    def lane_epoch(self) -> int:
        """What agents refuse everybody below of."""
        return self.epoch if self.shared is None else self.shared.held.epoch

    @property
    def lane_authority(self) -> Authority:
        """Who signs what the agents trust."""
        return need(self.authority if self.shared is None else self.shared.authority)

    @property
    def agent_port(self) -> int:
        """Where both agents listen."""
        return AGENT_PORT + (0 if self.shared is None else self.shared.held.number)

    def identity(self, role: Role) -> Identity:
        """The identity of `role` in this attempt."""
        return Identity(self.lane_id, role, self.lane_epoch)

    def tell(self, event: Event) -> None:
        """Let the listener know."""
        self.listener(event)

    def note(self, message: str, *, level: str = "info") -> None:
        """Tell a person something."""
        self.tell(Noted(self.migration_id, level, message))

    def remember(self, **facts: object) -> None:
        """Keep facts beyond this attempt.

        Raises:
            BusyError: LEASE_LOST.
        """
        self.written(self.store.set_facts(self.migration_id, self.epoch, **facts))

    def written(self, done: bool) -> None:
        """Raise when a write was refused since another attempt has begun.

        Raises:
            BusyError: LEASE_LOST.
        """
        if not done:
            self.lost.set()
            self.fence()

    def fact(self, name: str) -> object:
        """What an earlier attempt, or this one, has remembered; None when nothing."""
        return self.store.facts(self.migration_id).get(name)

    def wants(self) -> Wants:
        """What people want of it, at most WANTS_SECONDS old if that can be told. Any thread."""
        now = time.monotonic()
        if now - self._wants_read_at >= WANTS_SECONDS:
            self._wants_read_at = now
            # A database that is away is no reason to stop while bytes flow and the lease runs.
            with suppress(*AWAY):
                self._wants = self.store.requests.read(self.migration_id)
        return self._wants

    @property
    def limit_bytes_per_second(self) -> int:
        """The limit in force, on the wire; 0 is unlimited."""
        wanted = self.wants().limit_bytes_per_second
        return self.spec.transfer.limit_bytes_per_second if wanted is None else wanted

    def confirm(self) -> None:
        """As `check`, and the lease is asked for now, not when it is next renewed.

        A process that was stopped for longer than a lease does not know yet.
        """
        if not self.renew_lease():
            self.lost.set()
        self.check()

    def fence(self) -> None:
        """Raise when another controller drives the migration. Asks nobody.

        Raises:
            BusyError: LEASE_LOST.
        """
        lapsed = self.lapsed()
        if lapsed:
            self.lost.set()
        if self.lost.is_set():
            own = self.migration_id
            raise BusyError(
                LEASE_LOST,
                f"the lease of migration {own} could not be renewed in time, and another "
                f"controller may have it: `blockferry resume {own}` goes on where that is not so"
                if lapsed
                else f"another controller has taken migration {own} over",
                migration=own,
            )

    def check(self) -> None:
        """Raise when the attempt must not go on.

        Raises:
            BusyError: LEASE_LOST.
            CancelledError: INTERRUPTED, or CANCEL_REQUESTED from another process.
        """
        self.fence()
        if self.stop.is_set():
            raise CancelledError(
                INTERRUPTED,
                f"interrupted; `blockferry resume {self.migration_id}` goes on from here",
                migration=self.migration_id,
            )
        if self.wants().cancelled:
            raise CancelledError(
                CANCEL_REQUESTED,
                f"migration {self.migration_id} was cancelled",
                migration=self.migration_id,
            )

    def both(self, work: Callable[[Side], T]) -> tuple[T, T]:
        """Do `work` on both sides at once; wait for both, then raise the first error."""
        with ThreadPoolExecutor(2, thread_name_prefix="side") as pool:
            futures = [pool.submit(work, side) for side in self.sides]
        source, destination = futures
        return source.result(), destination.result()


LEASE_LOST: Final = "LEASE_LOST"
INTERRUPTED: Final = "INTERRUPTED"
CANCEL_REQUESTED: Final = "CANCEL_REQUESTED"


def need(value: T | None) -> T:
    """What an earlier step has set; its absence is a defect of ours."""
    if value is None:
        raise AssertionError("a step ran before the one that it builds on")
    return value
