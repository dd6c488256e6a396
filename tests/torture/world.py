"""Two clouds and their agents in memory, in which any call may go wrong.

Time passes only when somebody sleeps, so that a gibibyte crosses in milliseconds.
`matrix` says which calls, and how.
"""

from __future__ import annotations

import functools
import json
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import count
from typing import Any, Final

from msgspec.structs import replace

from blockferry import __version__
from blockferry.errors import UnreachableError
from blockferry.identity import Identity, Role
from blockferry.limits import GIB, MIB
from blockferry_controller.agents.port import Agent
from blockferry_controller.clouds.port import Volume
from blockferry_controller.delivery.user_data import read_user_data
from tests.fakes.agent import Content, MemoryLink
from tests.fakes.clock import ManualClock
from tests.fakes.cloud import MemoryCloud, MemoryServer
from tests.fakes.resident import Line, Resident
from tests.torture.matrix import KINDS, Fault

SIDES: Final = ("source", "destination")
_OF_POOLS: Final = ("vacate",)
"""Not called of a migration that has a pair of its own, which `matrix` is about."""
IN_THREADS: Final = ("watch_job", "read_manifest")
"""Streams: each message counts as a call."""


LOSSES: Final = ("lost", "peer")
AWAY: Final = "away"


class Killed(BaseException):
    """The controller is no more: not an Exception, so that nothing of it tidies up."""


@dataclass
class World:
    """Both clouds, the agents in them, and what is to go wrong.

    Attributes:
        calls: (side, verb) -> how often, while anything counts.
        struck: Faults that did happen.
        away: Sides whose cloud answers nothing.
        boots: Side -> how many instances were booted.
    """

    faults: list[Fault] = field(default_factory=list)
    calls: Counter[tuple[str, str]] = field(default_factory=Counter)
    struck: list[Fault] = field(default_factory=list)
    away: set[str] = field(default_factory=set)
    boots: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        self.link = MemoryLink(clock=ManualClock(), bytes_per_second=200.0 * MIB)
        self.clouds = {side: self._cloud(side) for side in SIDES}
        self.agents: dict[str, Resident] = {}
        self.volume = self.clouds["source"].add_volume("data", GIB)
        self.link.volumes[self.volume.id] = Content(GIB, GIB // 2, "precious")

    def connect(self, name: str) -> Any:
        """What Migrations takes for a cloud."""
        return _Struck(self, name, self.clouds[name], is_cloud=True)

    def dial(
        self,
        address: str,
        identity: Identity,
        credentials: object,
        root_pem: bytes,
        *,
        bootstrap: bool = False,
        patient: bool = True,
    ) -> Agent:
        """See Dial."""
        side = "source" if identity.role is Role.SOURCE else "destination"
        line: Any = _Struck(self, side, Line(self.link.agents, address, bootstrap, identity.epoch))
        agent: Agent = line
        return agent

    def lose(self, side: str) -> None:
        """The instance of a side is gone, with whatever it knew."""
        cloud = self.clouds[side]
        for server_id in list(cloud.servers):
            cloud.delete_server(server_id)

    @contextmanager
    def strike(self, side: str, verb: str, *, is_cloud: bool = False) -> Iterator[None]:
        """Around every call: count it, and let it go wrong when it is its turn."""
        self.calls[side, verb] += 1
        due = [
            fault
            for fault in self.faults
            if (fault.side, fault.verb, fault.nth) == (side, verb, self.calls[side, verb])
        ]
        for fault in due:
            self.struck.append(fault)
            if fault.kind in LOSSES:
                self.lose(_other(side) if fault.kind == "peer" else side)
            elif fault.kind == AWAY and not fault.late:
                self.away.add(side)
            elif not fault.late:
                raise _error(fault)
        if is_cloud:
            self.answer(side, verb)
        yield
        for fault in due:
            if fault.kind == AWAY:
                self.away.add(side)
                if is_cloud:
                    self.answer(side, verb)
            elif fault.kind not in LOSSES:
                raise _error(fault)

    def answer(self, side: str, verb: str) -> None:
        """What the cloud of a side does when it is asked anything: nothing, when it is away."""
        if side in self.away:
            raise UnreachableError("CLOUD_FAILS", f"{side} does not answer {verb}")

    def leftovers(self) -> list[str]:
        """What should not be there when all is done."""
        left = []
        for side, cloud in self.clouds.items():
            left += [f"{one.kind.value} {one.name} in {side}" for one in cloud.find_resources()]
            for volume in cloud.volumes.values():
                if volume.status != "available" or volume.attachments or volume.metadata:
                    left.append(f"{volume} in {side}")
        left += [f"an agent at {address}" for address in self.link.agents]
        volumes = self.clouds["destination"].volumes
        if [self.link.volumes[volume_id].name for volume_id in volumes] != ["precious"]:
            left.append(f"{len(volumes)} volumes at the destination, not one that is equal")
        return left

    def _cloud(self, side: str) -> _Cloud:
        cloud = _Cloud(name=side, link=self.link)
        net = SIDES.index(side)
        cloud.addresses = ((f"fd00:{net}::{n:x}", f"10.{net}.0.{n % 250 + 2}") for n in count(2))
        cloud.floating_prefix = f"192.0.{net}"
        cloud.on_boot = functools.partial(self._boot, side)
        cloud.on_stop = self._stop
        # Prepared: user-data for a stock image costs a tenth of a second to make.
        cloud.images = [
            replace(one, properties={**one.properties, "blockferry_agent": __version__})
            for one in cloud.images
        ]
        return cloud

    def _boot(self, side: str, server: MemoryServer) -> None:
        self.boots[side] += 1
        role = Role.SOURCE if side == "source" else Role.SINK
        for path, (content, _) in read_user_data(server.request.user_data).items():
            if not path.endswith("/agent.json"):
                continue
            told = json.loads(content)
            identity = Identity(told["migration_id"], role, told["epoch"])
            agent = Resident(self.link, identity, self.clouds[side], server.server.id)
            for address in told["listen"]:
                host = f"[{address}]" if ":" in address else address
                self.link.agents[f"{host}:{told['port']}"] = agent

    def _stop(self, server: MemoryServer) -> None:
        for address, agent in list(self.link.agents.items()):
            if isinstance(agent, Resident) and agent.server_id == server.server.id:
                agent.down = True
                del self.link.agents[address]


def _other(side: str) -> str:
    return SIDES[1 - SIDES.index(side)]


def _error(fault: Fault) -> BaseException:
    if fault.kind == "killed":
        return Killed(str(fault))
    return UnreachableError("TORTURE", str(fault))


@dataclass(slots=True)
class _Cloud(MemoryCloud):
    """One whose volumes hold something."""

    link: MemoryLink = field(default_factory=MemoryLink)

    def add_volume(
        self, name: str, size_bytes: int = GIB, status: str = "available", **fields: object
    ) -> Volume:
        volume = MemoryCloud.add_volume(self, name, size_bytes, status, **fields)
        self.link.volumes[volume.id] = Content(size_bytes, 0, "garbage")
        return volume


class _Struck:
    """Whatever it stands for, with the world's faults on its verbs."""

    def __init__(self, world: World, side: str, inner: Any, *, is_cloud: bool = False) -> None:
        self._world, self._side, self._inner, self._is_cloud = world, side, inner, is_cloud

    def __getattr__(self, verb: str) -> Any:
        found = getattr(self._inner, verb)
        if verb in KINDS or verb in _OF_POOLS:
            return self._wrapped(verb)
        # A cloud that is away is so for all of its verbs.
        if self._is_cloud and callable(found) and verb != "close":
            self._world.answer(self._side, verb)
        return found

    def _wrapped(self, verb: str) -> Callable[..., Any]:
        def call(*arguments: object, **named: object) -> Any:
            with self._world.strike(self._side, verb, is_cloud=self._is_cloud):
                return getattr(self._inner, verb)(*arguments, **named)

        def stream(*arguments: object, **named: object) -> Iterator[Any]:
            with self._world.strike(self._side, verb, is_cloud=self._is_cloud):
                pass
            for item in getattr(self._inner, verb)(*arguments, **named):
                yield item
                with self._world.strike(self._side, verb, is_cloud=self._is_cloud):
                    pass

        return stream if verb in IN_THREADS else call
