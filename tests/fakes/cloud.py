"""A cloud in memory: the Cloud port, fast, with quotas and faults.

What a test can do beside the port's verbs:
* `add_volume(…)`, and the lists `flavors`, `images`, `networks`, to set the stage;
* `fail("attach_volume", error, nth=2)`: the second call from now raises, without
  effect, or with `late=True` after it took effect (the answer was lost);
* `calls`, `verbs`: what was called; `volumes`, `servers`, `ports`, `groups`: what is there;
* `on_boot`, `on_stop`: told of each server, outside the lock, to start and stop an
  agent of the test's in its place.
"""

import threading
import uuid
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from ipaddress import ip_address
from itertools import count

from msgspec.structs import replace

from blockferry.errors import (
    BlockferryError,
    CapacityError,
    NotFoundError,
    PreconditionError,
    UsageError,
)
from blockferry.limits import GIB, MIB
from blockferry_controller.clouds.image_metadata import portable
from blockferry_controller.clouds.port import (
    ALL_KINDS,
    MIGRATION_KEY,
    RESOURCE_KEY,
    Access,
    Attachment,
    Flavor,
    FloatingIp,
    Image,
    IngressRule,
    Network,
    Port,
    Quota,
    Resource,
    ResourceKind,
    Server,
    ServerRequest,
    Tag,
    Volume,
    VolumeRequest,
    VolumeType,
)
from tests.fakes.shelf import OUR_KEYS, Shelf

USER_DATA_MAX_BYTES = 49_151
"""65,535 characters of base64 hold this many bytes."""
QUOTA: Mapping[str, int] = {
    "instances": 10,
    "cores": 20,
    "ram_bytes": 50 * GIB,
    "volumes": 10,
    "gigabytes": 1000,
    "ports": 50,
    "security_groups": 10,
    "security_group_rules": 100,
    "floating_ips": 10,
}


@dataclass(slots=True)
class MemoryServer:
    """A server and what a test wants to know of it."""

    server: Server
    tag: Tag
    request: ServerRequest
    addresses: tuple[str, ...]


@dataclass(slots=True)
class MemoryGroup:
    id: str
    tag: Tag
    rules: tuple[IngressRule, ...] = ()


@dataclass(slots=True)
class MemoryPort:
    port: Port
    tag: Tag
    network_id: str
    group_id: str


@dataclass(slots=True)
class MemoryFloatingIp:
    floating_ip: FloatingIp
    tag: Tag
    port_id: str


@dataclass(slots=True)
class _Fault:
    verb: str
    error: BlockferryError
    after_calls: int
    times: int
    late: bool


@dataclass(slots=True)
class MemoryCloud:
    """See the module. All verbs are thread-safe and take no time."""

    name: str = "memory"
    quotas: Mapping[str, int] = field(default_factory=lambda: dict(QUOTA))
    on_boot: Callable[[MemoryServer], None] = lambda server: None
    on_stop: Callable[[MemoryServer], None] = lambda server: None
    addresses: Iterator[tuple[str, ...]] = field(
        default_factory=lambda: ((f"fd00::{n:x}", f"10.0.0.{n % 250 + 2}") for n in count(2))
    )
    flavors: list[Flavor] = field(
        default_factory=lambda: [
            Flavor("1", "nano", 1, 512 * MIB, 3 * GIB),
            Flavor("2", "small", 1, 1024 * MIB, 5 * GIB),
        ]
    )
    images: list[Image] = field(
        default_factory=lambda: [
            Image(
                str(uuid.uuid4()),
                "debian-12",
                "active",
                2 * GIB,
                0,
                GIB // 2,
                "2026-01-01T00:00:00Z",
                {"os_distro": "debian", "os_version": "12", "architecture": "x86_64"},
            )
        ]
    )
    networks: list[Network] = field(
        default_factory=lambda: [
            Network(str(uuid.uuid4()), "own", False, False, frozenset({4, 6})),
            Network(str(uuid.uuid4()), "public", True, False, frozenset({4})),
        ]
    )
    floating_prefix: str = "203.0.113"
    routed: bool = True
    """Whether a router joins the external networks to all others."""
    outward: tuple[str, ...] = ()
    """What that router hides servers behind."""
    volume_types: list[str] = field(default_factory=lambda: ["standard", "fast"])
    kinds: dict[str, VolumeType] = field(default_factory=dict)
    """What is special about a volume type, by its name."""
    zones: list[str] = field(default_factory=lambda: ["nova"])
    standing: Access = field(default_factory=lambda: Access(frozenset({"member"}), {}, 0.0))
    volumes: Shelf = field(default_factory=Shelf)
    servers: dict[str, MemoryServer] = field(default_factory=dict)
    ports: dict[str, MemoryPort] = field(default_factory=dict)
    groups: dict[str, MemoryGroup] = field(default_factory=dict)
    floating_ips: dict[str, MemoryFloatingIp] = field(default_factory=dict)
    consoles: dict[str, str] = field(default_factory=dict)
    calls: list[tuple[object, ...]] = field(default_factory=list)
    closed: bool = False
    _faults: list[_Fault] = field(default_factory=list)
    _lock: threading.RLock = field(default_factory=threading.RLock)

    # What a test does beside the port.

    @property
    def verbs(self) -> list[str]:
        """The names of the verbs called so far, in order."""
        return [str(call[0]) for call in self.calls]

    def fail(
        self, verb: str, error: BlockferryError, *, nth: int = 1, times: int = 1, late: bool = False
    ) -> None:
        """Raise `error` at the `nth` call of `verb` from now, and at the `times - 1` after it."""
        with self._lock:
            self._faults.append(_Fault(verb, error, nth - 1, times, late))

    def add_volume(
        self, name: str, size_bytes: int = GIB, status: str = "available", **fields: object
    ) -> Volume:
        """Put a volume of the user's into the cloud."""
        volume = Volume(
            id=str(uuid.uuid4()),
            name=name,
            description="",
            size_bytes=size_bytes,
            status=status,
            volume_type="standard",
            availability_zone="nova",
            bootable=False,
            read_only=False,
            encrypted=False,
            multiattach=False,
            metadata={},
            image_metadata={},
            attachments=(),
        )
        with self._lock:
            self.volumes[volume.id] = replace(volume, **fields)
            return self.volumes[volume.id]

    # Volumes.

    @property
    def identity(self) -> str:
        return f"memory:{self.name}"

    def find_volume(self, reference: str) -> Volume:
        with self._call("find_volume", reference):
            if reference in self.volumes:
                return self.volumes[reference]
            named = [volume for volume in self.volumes.values() if volume.name == reference]
            if not named:
                raise NotFoundError("VOLUME_NOT_FOUND", f"no volume {reference} in {self.name}")
            if len(named) > 1:
                ids = ", ".join(sorted(volume.id for volume in named))
                raise PreconditionError(
                    "VOLUME_AMBIGUOUS", f"several volumes are named {reference}: {ids}"
                )
            return named[0]

    def list_volumes(self) -> Sequence[Volume]:
        with self._call("list_volumes"):
            return tuple(self.volumes.values())

    def ensure_volume(self, tag: Tag, request: VolumeRequest) -> Volume:
        with self._call("ensure_volume", tag, request):
            known = self.volumes.with_tag(tag)
            if known is not None:
                return known
            size_gib = -(-request.size_bytes // GIB)
            if request.volume_type and request.volume_type not in self.volume_types:
                raise NotFoundError("VOLUME_TYPE_NOT_FOUND", f"there are: {self.volume_types}")
            if request.availability_zone and request.availability_zone not in self.zones:
                raise NotFoundError("AVAILABILITY_ZONE_NOT_FOUND", f"there are: {self.zones}")
            self._take("volumes", 1)
            self._take("gigabytes", size_gib)
            kind = self._kind(request.volume_type or self.volume_types[0])
            if f"gigabytes_{kind.name}" in self.quotas:
                self._take(f"gigabytes_{kind.name}", size_gib)
            return self.add_volume(
                request.name,
                size_gib * GIB,
                description=request.description,
                volume_type=kind.name,
                encrypted=bool(kind.encrypted),
                multiattach=bool(kind.multiattach),
                availability_zone=request.availability_zone or self.zones[0],
                bootable=request.bootable,
                metadata={
                    **request.metadata,
                    MIGRATION_KEY: tag.migration_id,
                    RESOURCE_KEY: tag.resource,
                },
                image_metadata=portable(request.image_metadata),
            )

    def release_volume(self, volume_id: str) -> None:
        with self._call("release_volume", volume_id):
            volume = self._volume(volume_id)
            kept = {k: v for k, v in volume.metadata.items() if k not in OUR_KEYS}
            self.volumes[volume_id] = replace(volume, metadata=kept)

    def set_read_only(self, volume_id: str) -> None:
        with self._call("set_read_only", volume_id):
            self.volumes[volume_id] = replace(self._volume(volume_id), read_only=True)

    def delete_volume(self, volume_id: str) -> None:
        with self._call("delete_volume", volume_id):
            volume = self.volumes.get(volume_id)
            if volume is not None and volume.attachments:
                raise PreconditionError("VOLUME_ATTACHED", f"volume {volume_id} is attached")
            self.volumes.pop(volume_id, None)

    # What there is.

    def access(self) -> Access:
        with self._call("access"):
            return self.standing

    def list_volume_types(self) -> Sequence[VolumeType]:
        with self._call("list_volume_types"):
            return tuple(self._kind(name) for name in self.volume_types)

    def list_volume_zones(self) -> Sequence[str]:
        with self._call("list_volume_zones"):
            return tuple(self.zones)

    def list_flavors(self) -> Sequence[Flavor]:
        with self._call("list_flavors"):
            return tuple(self.flavors)

    def list_images(self) -> Sequence[Image]:
        with self._call("list_images"):
            return tuple(self.images)

    def list_networks(self) -> Sequence[Network]:
        with self._call("list_networks"):
            return tuple(self.networks)

    def quota(self, names: Collection[str] = ()) -> Quota:
        del names
        with self._call("quota"):
            used = self._used()
            return Quota({key: limit - used[key] for key, limit in self.quotas.items()})

    # Network.

    def ensure_security_group(self, tag: Tag, rules: Sequence[IngressRule]) -> str:
        with self._call("ensure_security_group", tag, tuple(rules)):
            group = next((group for group in self.groups.values() if group.tag == tag), None)
            if group is None:
                self._take("security_groups", 1)
                group = MemoryGroup(str(uuid.uuid4()), tag)
                self.groups[group.id] = group
            group.rules = tuple(dict.fromkeys(rules))
            return group.id

    def ensure_port(
        self, tag: Tag, network_id: str, security_group_id: str, ip_version: int = 0
    ) -> Port:
        with self._call("ensure_port", tag, network_id, security_group_id, ip_version):
            for known in self.ports.values():
                if known.tag == tag:
                    known.group_id = security_group_id
                    return known.port
            network = next((one for one in self.networks if one.id == network_id), None)
            if network is None:
                raise NotFoundError("NETWORK_NOT_FOUND", f"no network {network_id}")
            families = network.ip_versions & ({ip_version} if ip_version else {4, 6})
            self._take("ports", 1)
            given = next(self.addresses)
            addresses = tuple(one for one in given if ip_address(one).version in families)
            if not addresses:
                raise PreconditionError("PORT_WITHOUT_ADDRESS", f"{network_id} has none")
            port = Port(str(uuid.uuid4()), addresses)
            self.ports[port.id] = MemoryPort(port, tag, network_id, security_group_id)
            return port

    def outward_addresses(self, network_id: str) -> Sequence[str]:
        with self._call("outward_addresses", network_id):
            return self.outward

    def ensure_floating_ip(self, tag: Tag, port: Port, network_id: str) -> FloatingIp:
        with self._call("ensure_floating_ip", tag, port, network_id):
            if not any(ip_address(one).version == 4 for one in port.addresses):
                raise PreconditionError("FLOATING_IP_NEEDS_IPV4", f"{port.id} has none")
            for known in self.floating_ips.values():
                if known.tag == tag:
                    known.port_id = port.id
                    return known.floating_ip
            if network_id not in {one.id for one in self.networks if one.external}:
                raise NotFoundError("NETWORK_NOT_FOUND", f"no external network {network_id}")
            self._take("floating_ips", 1)
            if not self.routed:
                raise PreconditionError("FLOATING_IP_UNROUTED", f"no router to {network_id}")
            taken = {known.floating_ip.address for known in self.floating_ips.values()}
            pool = (f"{self.floating_prefix}.{n}" for n in range(2, 255))
            made = FloatingIp(str(uuid.uuid4()), next(one for one in pool if one not in taken))
            self.floating_ips[made.id] = MemoryFloatingIp(made, tag, port.id)
            return made

    def delete_floating_ip(self, floating_ip_id: str) -> None:
        with self._call("delete_floating_ip", floating_ip_id):
            self.floating_ips.pop(floating_ip_id, None)

    def delete_port(self, port_id: str) -> None:
        with self._call("delete_port", port_id):
            self.ports.pop(port_id, None)

    def delete_security_group(self, group_id: str) -> None:
        with self._call("delete_security_group", group_id):
            if any(port.group_id == group_id for port in self.ports.values()):
                raise PreconditionError("SECURITY_GROUP_IN_USE", f"a port uses {group_id}")
            self.groups.pop(group_id, None)

    # Servers.

    def ensure_server(self, tag: Tag, request: ServerRequest) -> Server:
        booted: list[MemoryServer] = []
        try:
            with self._call("ensure_server", tag, request):
                if len(request.user_data) > USER_DATA_MAX_BYTES:
                    raise UsageError("USER_DATA_TOO_LARGE", f"{len(request.user_data)} bytes")
                for known in self.servers.values():
                    if known.tag == tag:
                        return known.server
                booted.append(self._boot(tag, request))
                return booted[0].server
        finally:
            for server in booted:
                self.on_boot(server)

    def console_log(self, server_id: str, lines: int) -> str:
        with self._call("console_log", server_id, lines):
            return "\n".join(self.consoles.get(server_id, "").splitlines()[-lines:])

    def delete_server(self, server_id: str) -> None:
        with self._call("delete_server", server_id):
            gone = self.servers.pop(server_id, None)
            for volume in [one for one in self.volumes.values() if one.attachments]:
                self._untie(volume, server_id)
        if gone is not None:
            self.on_stop(gone)

    def attach_volume(self, server_id: str, volume_id: str) -> None:
        with self._call("attach_volume", server_id, volume_id):
            volume = self._volume(volume_id)
            if server_id not in self.servers:
                raise NotFoundError("SERVER_NOT_FOUND", f"no server {server_id} in {self.name}")
            if any(tie.server_id == server_id for tie in volume.attachments):
                return
            if volume.attachments and not volume.multiattach:
                raise PreconditionError("VOLUME_ATTACHED", f"volume {volume_id} is attached")
            if volume.status not in {"available", "in-use"}:
                raise PreconditionError("VOLUME_STATE", f"volume {volume_id} is {volume.status}")
            ties = (*volume.attachments, Attachment(server_id, "/dev/vdb"))
            self.volumes[volume_id] = replace(volume, status="in-use", attachments=ties)

    def detach_volume(self, server_id: str, volume_id: str) -> None:
        with self._call("detach_volume", server_id, volume_id):
            if volume_id in self.volumes:
                self._untie(self.volumes[volume_id], server_id)

    # All of it.

    def find_resources(
        self, migration_id: str | None = None, kinds: Collection[ResourceKind] = ALL_KINDS
    ) -> Sequence[Resource]:
        with self._call("find_resources", migration_id):
            return [
                Resource(kind, resource_id, name, tag)
                for kind, resource_id, name, tag in self._things()
                if kind in kinds and migration_id in {None, tag.migration_id}
            ]

    def _things(self) -> Iterator[tuple[ResourceKind, str, str, Tag]]:
        """All that carries a tag, in the order in which it can be deleted."""
        for known in self.servers.values():
            yield ResourceKind.SERVER, known.server.id, known.server.name, known.tag
        for key, ip in self.floating_ips.items():
            yield ResourceKind.FLOATING_IP, key, ip.floating_ip.address, ip.tag
        for port in self.ports.values():
            yield ResourceKind.PORT, port.port.id, port.tag.name, port.tag
        for group in self.groups.values():
            yield ResourceKind.SECURITY_GROUP, group.id, group.tag.name, group.tag
        for tag, volume in self.volumes.tagged():
            yield ResourceKind.VOLUME, volume.id, volume.name, tag

    def close(self) -> None:
        self.closed = True

    @contextmanager
    def _call(self, verb: str, *arguments: object) -> Iterator[None]:
        with self._lock:
            self.calls.append((verb, *arguments))
            fault = self._due(verb)
            if fault is not None and not fault.late:
                raise fault.error
            yield
            if fault is not None:
                raise fault.error

    def _boot(self, tag: Tag, request: ServerRequest) -> MemoryServer:
        flavor = self._flavor(request.flavor_id)
        self._take("instances", 1)
        self._take("cores", flavor.vcpus)
        self._take("ram_bytes", flavor.ram_bytes)
        server = Server(str(uuid.uuid4()), tag.name, "ACTIVE")
        addresses = self.ports[request.port_id].port.addresses
        self.servers[server.id] = MemoryServer(server, tag, request, addresses)
        return self.servers[server.id]

    def _due(self, verb: str) -> _Fault | None:
        due = None
        for fault in [fault for fault in self._faults if fault.verb == verb]:
            if fault.after_calls > 0:
                fault.after_calls -= 1
            elif due is None:
                due = fault
                fault.times -= 1
                if fault.times == 0:
                    self._faults.remove(fault)
        return due

    def _used(self) -> dict[str, int]:
        flavors = [self._flavor(known.request.flavor_id) for known in self.servers.values()]
        typed = {f"gigabytes_{name}": self.volumes.gigabytes[name] for name in self.volume_types}
        return {
            **typed,
            "instances": len(flavors),
            "cores": sum(flavor.vcpus for flavor in flavors),
            "ram_bytes": sum(flavor.ram_bytes for flavor in flavors),
            "volumes": len(self.volumes),
            "gigabytes": self.volumes.gigabytes.total(),
            "ports": len(self.ports),
            "floating_ips": len(self.floating_ips),
            "security_groups": len(self.groups),
            "security_group_rules": sum(len(group.rules) + 2 for group in self.groups.values()),
        }

    def _take(self, resource: str, amount: int) -> None:
        """Every allocation comes by here first."""
        left = self.quotas[resource] - self._used()[resource]
        if left < amount:
            raise CapacityError(
                f"QUOTA_{resource.upper()}",
                f"the quota of {self.name} leaves {left} {resource}, {amount} needed",
            )

    def _flavor(self, flavor_id: str) -> Flavor:
        for flavor in self.flavors:
            if flavor.id == flavor_id:
                return flavor
        raise NotFoundError("FLAVOR_NOT_FOUND", f"no flavor {flavor_id} in {self.name}")

    def _kind(self, name: str) -> VolumeType:
        known = self.kinds.get(name, VolumeType(name, name, encrypted=False, multiattach=False))
        return replace(known, default=name == self.volume_types[0])

    def _volume(self, volume_id: str) -> Volume:
        if volume_id not in self.volumes:
            raise NotFoundError("VOLUME_NOT_FOUND", f"no volume {volume_id} in {self.name}")
        return self.volumes[volume_id]

    def _untie(self, volume: Volume, server_id: str) -> None:
        ties = tuple(tie for tie in volume.attachments if tie.server_id != server_id)
        if len(ties) != len(volume.attachments):
            status = "in-use" if ties else "available"
            self.volumes[volume.id] = replace(volume, status=status, attachments=ties)
