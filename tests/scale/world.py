"""Both clouds and all agents of a fleet, in a process of their own: `python -m tests.scale.world`.

Controllers call it over a socket. It ends when its standard input does.

What goes wrong, by dice:
* A call of a cloud: it fails for the moment, half the time after it took effect, and the
  adapter repeats it, as it does with a 500; of LASTING of these the adapter gives up, and the
  migration hears of it.
* An instance: lost, with its agent, after some of its agent's calls.
"""

import json
import random
import sys
import threading
from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from blockferry.errors import ForbiddenError, UnreachableError
from blockferry.identity import Identity, Role
from blockferry.limits import AGENT_PORT, GIB
from blockferry_controller.clouds.openstack.refusals import TransientError
from tests.fakes.agent import Content, MemoryAgent, MemoryLink
from tests.fakes.cloud import MemoryServer
from tests.fakes.resident import Line, Resident
from tests.scale.journal import Journal
from tests.scale.land import Land
from tests.scale.wire import serve

EAST, WEST = "east", "west"
LASTING = 0.05
"""Of the calls that fail."""
_DOOM_CALLS = 20
"""A lost instance's agent has answered fewer."""
_AT_ONCE = 1e18
"""Bytes per second: no byte moves, so none takes time."""


@dataclass(frozen=True)
class Weather:
    """How much goes wrong: shares of calls and of instances, in [0, 1]."""

    seed: int = 1
    errors: float = 0.01
    losses: float = 0.005


@dataclass(frozen=True, slots=True)
class Speaker:
    """Who speaks to an agent: as its certificate says, and from which process."""

    migration_id: str
    epoch: int
    pid: int


@dataclass
class World:
    """See the module. Thread-safe."""

    weather: Weather
    calls: Counter[str] = field(default_factory=Counter)
    struck: Counter[str] = field(default_factory=Counter)
    journal: Journal = field(default_factory=Journal)

    def __post_init__(self) -> None:
        self.contents: dict[str, Content] = {}
        lands = (Land.named(name, net, self.contents) for net, name in enumerate((EAST, WEST), 1))
        self.lands = {land.name: land for land in lands}
        for land in self.lands.values():
            land.on_boot = lambda server, land=land: self._boot(land, server)  # type: ignore[misc]
            land.on_stop = self._stop
        self.agents: dict[str, MemoryAgent] = {}
        self._links: dict[str, MemoryLink] = {}
        self._doomed: dict[str, int] = {}
        self._epochs: dict[str, int] = {}
        self._dice = random.Random(self.weather.seed)
        self._lock = threading.Lock()

    # --- what controllers call ------------------------------------------------------

    def cloud(self, name: str, verb: str, arguments: list[Any], named: dict[str, Any]) -> Any:
        """A verb of a cloud."""
        land = self.lands[name]
        with self._lock:
            self.calls[verb] += 1
            fails, late, lasts = (
                self._dice.random() < odds for odds in (self.weather.errors, 0.5, LASTING)
            )
        if not fails or late:
            found = getattr(land, verb)(*arguments, **named)
            land.calls.clear()
            if not fails:
                return found
        with self._lock:
            self.struck["a call that failed for long" if lasts else "a call that failed"] += 1
        said = f"{name} answered {verb} with 500"
        raise (
            UnreachableError("CLOUD_FAILS", said) if lasts else TransientError("CLOUD_FAILS", said)
        )

    def agent(
        self, address: str, bootstrap: bool, who: Speaker, verb: str, arguments: list[Any]
    ) -> Any:
        """A verb of an agent; streams are lists."""
        agent = self.agents.get(address)
        if isinstance(agent, Resident):
            self._heed(agent, who)
        found = getattr(Line(self.agents, address, bootstrap, who.epoch), verb)(*arguments)
        return list(found) if verb == "read_manifest" else found

    def steer(self, address: str, who: Speaker, job_id: str, wanted: dict[str, Any]) -> Any:
        """Agent.update_job."""
        agent = self.agents.get(address)
        if isinstance(agent, Resident):
            self._heed(agent, who)
        line = Line(self.agents, address, bootstrap=False, epoch=who.epoch)
        return line.update_job(job_id, **wanted)

    # --- what the harness calls -----------------------------------------------------

    def fill(self, volumes: int, at_once: int) -> None:
        """Volumes of 1 to 3 GiB in east, and just enough room for their copies in west."""
        sizes = [1 + at % 3 for at in range(volumes)]
        for at, size_gib in enumerate(sizes):
            volume = self.lands[EAST].add_volume(f"v{at:05}", size_gib * GIB)
            content = Content(volume.size_bytes, volume.size_bytes // 2, f"of {volume.id}")
            self.contents[volume.id] = content
        for land in self.lands.values():
            land.have_room(at_once, volumes, sum(sizes))

    def remove(self, names: Iterable[str]) -> None:
        """Their owner deletes these volumes in east."""
        gone = set(names)
        volumes = self.lands[EAST].volumes
        for volume in [one for one in volumes.values() if one.name in gone]:
            del volumes[volume.id]

    def driven(self, pid: int) -> int:
        """How many migrations whose instances are there now a process has commanded."""
        with self._lock:
            there = list(self._links)
        return self.journal.driven(there, pid)

    def summary(self) -> dict[str, Any]:
        """All that is to be judged."""
        east, west = self.lands[EAST], self.lands[WEST]
        sources = Counter(volume.metadata.get("was", "") for volume in west.volumes.values())
        unequal = [
            volume.id
            for volume in west.volumes.values()
            if self.contents[volume.id].name != f"of {volume.metadata.get('was')}"
        ]
        return {
            "calls": dict(self.calls.most_common()),
            "struck": dict(self.struck),
            "journal": asdict(self.journal.summary()),
            "copied": sorted(sources),
            "copied_twice": sorted(key for key, times in sources.items() if times > 1),
            "unequal": unequal,
            "left": [f"{one.kind.value} {one.name} in {land.name}"
                     for land in (east, west) for one in land.find_resources()],
            "overrun": [*east.overrun(), *west.overrun()],
            "refusals": dict(east.refusals + west.refusals),
            "peaks": {land.name: {key: (land.peaks[key], limit)
                                  for key, limit in land.quotas.items() if land.peaks[key]}
                      for land in (east, west)},
        }  # fmt: skip

    # --- instances ------------------------------------------------------------------

    def _boot(self, land: Land, server: MemoryServer) -> None:
        migration_id = server.tag.migration_id
        with self._lock:
            if self._dice.random() < self.weather.losses:
                self._doomed[server.server.id] = self._dice.randrange(_DOOM_CALLS)
            link = self._links.setdefault(
                migration_id,
                MemoryLink(
                    bytes_per_second=_AT_ONCE, write_bytes_per_second=_AT_ONCE,
                    volumes=self.contents,
                ),
            )  # fmt: skip
        role = Role.SOURCE if land.name == EAST else Role.SINK
        agent = Resident(link, Identity(migration_id, role, 1), land, server.server.id)
        for address in server.addresses:
            host = f"[{address}]" if ":" in address else address
            self.agents[f"{host}:{AGENT_PORT}"] = link.agents[f"{host}:{AGENT_PORT}"] = agent

    def _stop(self, server: MemoryServer) -> None:
        with self._lock:
            link = self._links.get(server.tag.migration_id)
            if link is None:
                return
            with link.lock:
                for address, agent in list(link.agents.items()):
                    if isinstance(agent, Resident) and agent.server_id == server.server.id:
                        agent.down = True
                        del link.agents[address], self.agents[address]
            if not link.agents:
                del self._links[server.tag.migration_id]
            self._epochs.pop(server.server.id, None)

    def _heed(self, agent: Resident, who: Speaker) -> None:
        """Refuse what is of an epoch that is over, as real agents do; lose what is doomed.

        Raises:
            ForbiddenError: STALE_EPOCH.
        """
        with self._lock:
            known = self._epochs.get(agent.server_id, 0)
            self._epochs[agent.server_id] = max(known, who.epoch)
            left = self._doomed.get(agent.server_id)
            if left:
                self._doomed[agent.server_id] = left - 1
        if who.epoch < known:
            self.journal.refused()
            raise ForbiddenError("STALE_EPOCH", f"epoch {who.epoch} is over, {known} was seen")
        self.journal.obeyed(who.migration_id, who.epoch, who.pid)
        if left == 0:
            with self._lock:
                del self._doomed[agent.server_id]
                self.struck["an instance that was lost"] += 1
            land = self.lands[EAST if agent.identity.role is Role.SOURCE else WEST]
            land.delete_server(agent.server_id)


def main() -> None:
    """Serve until standard input ends."""
    path, weather = sys.argv[1:]
    world = World(Weather(**json.loads(weather)))

    def answer(what: str, *arguments: Any) -> Any:
        return getattr(world, what)(*arguments)

    serve(Path(path), answer)
    print("ready", flush=True)
    sys.stdin.read()


if __name__ == "__main__":
    main()
