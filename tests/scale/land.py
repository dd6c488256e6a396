"""One of the two clouds: in memory, with room for a fleet and its quota watched."""

from collections import Counter
from dataclasses import dataclass, field
from itertools import count

from msgspec.structs import replace

from blockferry import __version__
from blockferry.errors import CapacityError
from blockferry.limits import GIB, MIB
from blockferry_controller.clouds.port import Volume
from tests.fakes.agent import Content
from tests.fakes.cloud import MemoryCloud
from tests.fakes.shelf import size_gib

RULES = 8
"""More than a group of ours has."""


@dataclass(slots=True)
class Land(MemoryCloud):
    """A cloud whose volumes hold something, and which remembers how full it was.

    Attributes:
        contents: What each volume of both clouds holds.
        peaks: The most there was in use of each resource, by the names of the quotas.
        refusals: Allocations that the quota did not allow.
    """

    contents: dict[str, Content] = field(default_factory=dict)
    peaks: Counter[str] = field(default_factory=Counter)
    refusals: Counter[str] = field(default_factory=Counter)

    @classmethod
    def named(cls, name: str, net: int, contents: dict[str, Content]) -> "Land":
        """An empty one whose servers have addresses of a net of their own."""
        land = cls(name=name, contents=contents)
        land.addresses = (
            (f"fd00:{net}::{n:x}", f"10.{net * 64 + (n >> 16)}.{n >> 8 & 255}.{n & 255}")
            for n in count(2)
        )
        # Prepared: what makes user-data for a stock image is measured elsewhere.
        land.images = [
            replace(one, properties={**one.properties, "blockferry_agent": __version__})
            for one in land.images
        ]
        return land

    def have_room(self, at_once: int, volumes: int, gigabytes: int) -> None:
        """Allow exactly what `at_once` migrations take, and as many volumes."""
        self.quotas = {
            "instances": at_once, "cores": at_once, "ram_bytes": at_once * 512 * MIB,
            "ports": at_once, "security_groups": at_once, "security_group_rules": at_once * RULES,
            "volumes": volumes, "gigabytes": gigabytes, "floating_ips": at_once,
        }  # fmt: skip

    def add_volume(
        self, name: str, size_bytes: int = GIB, status: str = "available", **fields: object
    ) -> Volume:
        volume = MemoryCloud.add_volume(self, name, size_bytes, status, **fields)
        self.contents[volume.id] = Content(size_bytes, 0, "garbage")
        return volume

    def overrun(self) -> list[str]:
        """Quotas that were exceeded at any time, or that are by a count of all there is."""
        found = {
            "instances": len(self.servers), "ports": len(self.ports),
            "security_groups": len(self.groups), "volumes": len(self.volumes),
            "gigabytes": sum(size_gib(volume) for volume in self.volumes.values()),
        }  # fmt: skip
        most = {key: max(self.peaks[key], found.get(key, 0)) for key in self.quotas}
        return [
            f"{self.name}: {most[key]} {key} of {limit}"
            for key, limit in self.quotas.items()
            if most[key] > limit
        ]

    def _take(self, resource: str, amount: int) -> None:
        try:
            MemoryCloud._take(self, resource, amount)
        except CapacityError:
            self.refusals[resource] += 1
            raise
        self.peaks[resource] = max(self.peaks[resource], self._used()[resource] + amount)
