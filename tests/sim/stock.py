"""What an embedded cloud is furnished with unless a test says otherwise."""

import uuid
from collections.abc import Mapping
from dataclasses import dataclass

from tests.sim.http import Json

QUOTAS: Mapping[str, int] = {
    "instances": 10,
    "cores": 20,
    "ram": 51_200,
    "volumes": 10,
    "gigabytes": 1_000,
    "network": 100,
    "subnet": 100,
    "port": 500,
    "security_group": 10,
    "security_group_rule": 100,
    "floatingip": 50,
    "router": 10,
}
"""OpenStack's own defaults; -1 is unlimited, `ram` is in MiB."""


def flavor(name: str, vcpus: int, ram_mib: int, disk_gib: int) -> Json:
    """A flavor whose id follows from its name."""
    flavor_id = str(uuid.uuid5(uuid.NAMESPACE_OID, name))
    return {"id": flavor_id, "name": name, "vcpus": vcpus, "ram": ram_mib, "disk": disk_gib}


FLAVORS = (
    flavor("m1.nano", 1, 512, 3),
    flavor("m1.small", 1, 2048, 20),
    flavor("m1.medium", 2, 4096, 40),
)


@dataclass(frozen=True)
class Timings:
    """How long things take, in seconds."""

    volume_create: float = 0.2
    volume_delete: float = 0.1
    attach: float = 0.1
    detach: float = 0.1
    server_build: float = 0.2
    server_delete: float = 0.1
