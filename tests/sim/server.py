"""A server as Nova's database knows it, and how each microversion shows it."""

from __future__ import annotations

import uuid
from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

from tests.sim.http import Json

if TYPE_CHECKING:
    from tests.sim.guest import Guest

POWER = {"ACTIVE": 1, "SHUTOFF": 4, "ERROR": 0, "BUILD": 0}
VM_STATES = {"ACTIVE": "active", "SHUTOFF": "stopped", "ERROR": "error", "BUILD": "building"}


def now() -> str:
    """Nova's notation of this moment."""
    return datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")


@dataclass
class VolumeTie:
    """A volume on a server: Nova's block device mapping."""

    volume_id: str
    device: str
    delete_on_termination: bool = False
    tag: str | None = None
    bdm_id: str = field(default_factory=lambda: str(uuid.uuid4()))
    root: bool = False


@dataclass
class Server:
    """One server.

    Attributes:
        made_ports: Ports that Nova made itself and deletes with the server.
        fault: Body of the `fault` element of a server in ERROR.
    """

    id: str
    name: str
    flavor: Json
    image_id: str
    user_id: str
    metadata: dict[str, str]
    zone: str
    description: str | None = None
    config_drive: bool = False
    key_name: str | None = None
    user_data: bytes = b""
    status: str = "BUILD"
    task_state: str | None = "scheduling"
    created: str = field(default_factory=now)
    updated: str = field(default_factory=now)
    launched_at: str | None = None
    ports: list[str] = field(default_factory=list)
    made_ports: list[str] = field(default_factory=list)
    volumes: list[VolumeTie] = field(default_factory=list)
    tags: list[str] = field(default_factory=list)
    fault: Json | None = None
    guest: Guest | None = None

    def set(self, status: str, task_state: str | None = None) -> None:
        """Set status and task now."""
        self.status = status
        self.task_state = task_state
        self.updated = now()

    def fail(self, message: str) -> None:
        """It is in ERROR, and says why."""
        self.set("ERROR")
        self.fault = {"code": 500, "created": now(), "message": message}

    def next_device(self) -> str:
        """The name the next volume would get: /dev/vdb, /dev/vdc and so on; empty when full."""
        taken = {tie.device for tie in self.volumes}
        for letter in "bcdefghijklmnopqrstuvwxyz":
            if f"/dev/vd{letter}" not in taken:
                return f"/dev/vd{letter}"
        return ""

    def view(self, version: tuple[int, int], *, admin: bool, network: Network) -> Json:
        """The server as `GET /servers/{id}` shows it; links and ids of others added by Nova."""
        view: Json = {
            "id": self.id,
            "name": self.name,
            "status": self.status,
            "tenant_id": network.project_id,
            "user_id": self.user_id,
            "metadata": dict(self.metadata),
            "created": self.created,
            "updated": self.updated,
            "addresses": network.addresses(self.ports),
            "accessIPv4": "",
            "accessIPv6": "",
            "key_name": self.key_name,
            "config_drive": "True" if self.config_drive else "",
            "OS-DCF:diskConfig": "MANUAL",
            "OS-EXT-AZ:availability_zone": self.zone if self.status != "BUILD" else "",
            "OS-EXT-STS:power_state": POWER[self.status],
            "OS-EXT-STS:task_state": self.task_state,
            "OS-EXT-STS:vm_state": VM_STATES[self.status],
            "OS-SRV-USG:launched_at": self.launched_at,
            "OS-SRV-USG:terminated_at": None,
            "os-extended-volumes:volumes_attached": [
                self._volume_view(t, version) for t in self.volumes
            ],
            "hostId": "5d6e" * 14,
            "image": {"id": self.image_id} if self.image_id else "",
            "flavor": self._flavor_view(version),
        }
        groups = network.groups(self.ports)
        if groups:
            view["security_groups"] = groups
        if self.status in {"ACTIVE", "BUILD"}:
            view["progress"] = 100 if self.status == "ACTIVE" else 0
        if self.fault and self.status == "ERROR":
            view["fault"] = self.fault
        if admin:
            view["OS-EXT-SRV-ATTR:host"] = "sim"
        _add_by_version(view, self, version)
        return view

    def _volume_view(self, tie: VolumeTie, version: tuple[int, int]) -> Json:
        shown: Json = {"id": tie.volume_id}
        if version >= (2, 3):
            shown["delete_on_termination"] = tie.delete_on_termination
        return shown

    def _flavor_view(self, version: tuple[int, int]) -> Json:
        if version < (2, 47):
            return {"id": self.flavor["id"]}
        return {
            "original_name": self.flavor["name"],
            "vcpus": self.flavor["vcpus"],
            "ram": self.flavor["ram"],
            "disk": self.flavor["disk"],
            "ephemeral": 0,
            "swap": 0,
            "extra_specs": {},
        }


def _add_by_version(view: Json, server: Server, version: tuple[int, int]) -> None:
    later: tuple[tuple[tuple[int, int], str, Any], ...] = (
        ((2, 9), "locked", False),
        ((2, 19), "description", server.description),
        ((2, 26), "tags", list(server.tags)),
        ((2, 63), "trusted_image_certificates", None),
        ((2, 71), "server_groups", []),
        ((2, 73), "locked_reason", None),
        ((2, 96), "pinned_availability_zone", None),
    )
    for since, key, value in later:
        if version >= since:
            view[key] = value


class Network:
    """What a server shows of its ports; made by Nova from Neutron's data."""

    def __init__(
        self,
        project_id: str,
        ports: dict[str, Json],
        networks: dict[str, Json],
        security_groups: dict[str, Json],
    ) -> None:
        self.project_id = project_id
        self._ports = ports
        self._networks = networks
        self._groups = security_groups

    def addresses(self, port_ids: list[str]) -> Json:
        """Addresses by the name of their network."""
        shown: dict[str, list[Json]] = {}
        for port in self._known(port_ids):
            addresses = shown.setdefault(self._networks[port["network_id"]]["name"], [])
            addresses.extend(
                {
                    "version": 6 if ":" in ip["ip_address"] else 4,
                    "addr": ip["ip_address"],
                    "OS-EXT-IPS:type": "fixed",
                    "OS-EXT-IPS-MAC:mac_addr": port["mac_address"],
                }
                for ip in port["fixed_ips"]
            )
        return shown

    def groups(self, port_ids: list[str]) -> list[Json]:
        """Names of the security groups of all ports."""
        ids = [group for port in self._known(port_ids) for group in port["security_groups"]]
        return [{"name": self._groups[one]["name"]} for one in ids if one in self._groups]

    def _known(self, port_ids: list[str]) -> list[Json]:
        return [self._ports[one] for one in port_ids if one in self._ports]
