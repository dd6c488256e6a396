"""One embedded cloud: its services, its state on disk, its quotas, faults and time."""

from __future__ import annotations

import collections
import contextlib
import errno
import shutil
import threading
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

from tests.sim import clouds_yaml
from tests.sim.addresses import api_addresses, claim_network
from tests.sim.cinder import Cinder
from tests.sim.faults import Faults
from tests.sim.glance import Glance
from tests.sim.guest.wire import Walls
from tests.sim.http import Json, ServiceServer
from tests.sim.keystone import Keystone, User
from tests.sim.neutron import Neutron
from tests.sim.nova import Nova
from tests.sim.stock import FLAVORS, QUOTAS, Timings
from tests.sim.tally import kind_of
from tests.sim.timeline import Timeline
from tests.sim.volume import GIB

if TYPE_CHECKING:
    from openstack.connection import Connection

    from tests.sim.service import Service

PASSWORD = "not-a-secret"


class EmbeddedCloud:
    """An OpenStack for tests, on a loopback address of its own. A context manager.

    Args:
        name: Its entry in clouds.yaml: user demo, project demo; and `<name>-admin`, its operator.
        directory: Holds `clouds.yaml` and `<name>/` with volumes and instances;
            may be shared by several clouds.
        address: Loopback address of its APIs, on OpenStack's usual ports;
            by default one that is free.
        quotas: Over `QUOTAS`; may be changed later in `.quotas`.
        thick: New volumes hold garbage instead of zeros.
        token_seconds: How long tokens are valid.
        ipv6_cidr: A network that servers have addresses of, too; this machine must take
            all of them for its own.

    Methods are thread-safe. Leaves no process behind: guests end with the cloud,
    even when its process is killed.
    """

    def __init__(
        self,
        name: str,
        directory: Path,
        *,
        address: str | None = None,
        faults: Faults | None = None,
        quotas: Mapping[str, int] | None = None,
        flavors: tuple[Json, ...] = FLAVORS,
        volume_types: tuple[str, ...] = ("standard", "fast", "__DEFAULT__"),
        zones: tuple[str, ...] = ("nova",),
        timings: Timings | None = None,
        thick: bool = False,
        token_seconds: float = 3600,
        prepared_version: str | None = None,
        ipv6_cidr: str = "",
    ) -> None:
        self.name = name
        self.directory = directory.resolve() / name
        self.clouds_yaml = directory.resolve() / "clouds.yaml"
        self.faults = faults or Faults()
        self.quotas = {**QUOTAS, **(quotas or {})}
        self.timings = timings or Timings()
        self.thick = thick
        self.walls: Walls | None = None
        """What passes between instances that are booted from now on and this machine."""
        self.lock = threading.RLock()
        self.timeline = Timeline(self.lock)
        self.requests: collections.deque[tuple[str, str, str, int]] = collections.deque(maxlen=9999)
        """(service, method, path, status) of what was answered, oldest first."""
        self.answered: collections.Counter[tuple[str, str]] = collections.Counter()
        """How many requests were answered: by service, and by what kind of request it was."""
        self.problems: list[str] = []
        """Tracebacks of bugs in the simulator itself; empty unless it is wrong."""
        self.project_id = uuid.uuid5(uuid.NAMESPACE_DNS, f"{name}.project").hex
        self._asked_address = address
        self._aside: list[threading.Thread] = []
        self._open = contextlib.ExitStack()
        self._stock = (flavors, volume_types, zones, prepared_version)
        self._token_seconds = token_seconds
        self._ipv6_cidrs = (ipv6_cidr,) if ipv6_cidr else ()

    # --- life ---

    def __enter__(self) -> EmbeddedCloud:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def start(self) -> None:
        """Listen, and write the entry of clouds.yaml.

        Raises:
            OSError: EADDRINUSE when the address asked for is taken.
        """
        shutil.rmtree(self.directory, ignore_errors=True)
        for part in ("volumes", "instances"):
            (self.directory / part).mkdir(parents=True)
        keystone_server = self._claim_address()
        self.address = keystone_server.server_name
        self.tenant_cidr, held = claim_network(self.address)
        self._open.callback(held.close)
        self.external_cidr, held = claim_network(self.address)
        self._open.callback(held.close)
        self._make_services()
        for service in self.services:
            self._listen(service, keystone_server if service is self.keystone else None)
        self.timeline.start()
        clouds_yaml.set_entry(self.clouds_yaml, self.name, self._entry("demo"))
        clouds_yaml.set_entry(self.clouds_yaml, f"{self.name}-admin", self._entry("admin"))

    def close(self) -> None:
        """Stop everything, guests first. What is on disk stays. Idempotent."""
        self.timeline.close()
        for thread in self._aside:
            thread.join(10)
        with self.lock:
            servers = list(self.nova.servers.values()) if hasattr(self, "nova") else []
        for server in servers:
            if server.guest:
                server.guest.begin_kill()
        for server in servers:
            if server.guest:
                server.guest.remove(keep_disk=True)
        self._open.close()

    def _claim_address(self) -> ServiceServer:
        for address in api_addresses(self._asked_address):
            try:
                return ServiceServer((address, Keystone.port))
            except OSError as error:
                if error.errno != errno.EADDRINUSE:
                    raise
        raise OSError(
            errno.EADDRINUSE,
            f"port {Keystone.port} of {self._asked_address or 'every address tried'} is taken: "
            "is another embedded cloud running there?",
        )

    def _make_services(self) -> None:
        flavors, volume_types, zones, prepared = self._stock
        self.keystone = Keystone(
            self,
            project_id=self.project_id,
            users=[
                User("demo-id", "demo", PASSWORD, ("member", "reader")),
                User("admin-id", "admin", PASSWORD, ("admin", "member", "reader")),
                User("reader-id", "reader", PASSWORD, ("reader",)),
            ],
            token_seconds=self._token_seconds,
        )
        self.glance = Glance(self)
        tenant_cidrs = (self.tenant_cidr, *self._ipv6_cidrs)
        self.neutron = Neutron(self, tenant_cidrs=tenant_cidrs, external_cidr=self.external_cidr)
        self._open.callback(self.neutron.translator.set, {})
        self.cinder = Cinder(self, volume_types=volume_types, zones=zones)
        self.nova = Nova(self, flavors=flavors, zones=zones)
        self.services: tuple[Service, ...] = (
            self.keystone,
            self.nova,
            self.cinder,
            self.neutron,
            self.glance,
        )
        self._add_images(prepared)

    def _add_images(self, prepared: str | None) -> None:
        for name, distro, version in (
            ("debian-12", "debian", "12"),
            ("ubuntu-24.04", "ubuntu", "24.04"),
        ):
            properties = {"os_distro": distro, "os_version": version, "architecture": "x86_64"}
            self.glance.add_image(name, min_disk_gib=2, properties=properties)
        if prepared is not None:
            properties["blockferry_agent"] = prepared
            self.glance.add_image("blockferry", min_disk_gib=2, properties=properties)

    def _listen(self, service: Service, server: ServiceServer | None) -> None:
        if server is None:
            try:
                server = ServiceServer((self.address, service.port))
            except OSError:  # something else of this machine listens on all addresses
                server = ServiceServer((self.address, 0))
        server.respond = service.respond
        service.url = server.url
        thread = threading.Thread(
            target=server.serve_forever, args=(0.05,), name=f"sim-{service.name}", daemon=True
        )
        thread.start()
        self._open.callback(thread.join, 10)
        self._open.callback(server.close)

    def _entry(self, user: str) -> Json:
        return {
            "auth": {
                "auth_url": f"{self.keystone.url}/v3",
                "username": user,
                "password": PASSWORD,
                "project_name": "demo",
                "user_domain_name": "Default",
                "project_domain_name": "Default",
            },
            "region_name": "RegionOne",
            "identity_api_version": "3",
        }

    def aside(self, act: Callable[[], None]) -> None:
        """Call `act` in a thread of its own, without the lock: it takes its time."""
        thread = threading.Thread(target=act, name="sim-aside", daemon=True)
        self._aside = [one for one in self._aside if one.is_alive()] + [thread]
        thread.start()

    # --- what tests and the demo ask of it ---

    def record(self, service: str, method: str, path: str, status: int) -> None:
        """Keep that a request was answered."""
        with self.lock:
            self.answered[service, kind_of(method, path)] += 1
        self.requests.append((service, method, path, status))

    def connect(self, user: str = "demo") -> Connection:
        """An unmodified openstacksdk connection, as `demo`, `admin` or `reader`."""
        from openstack.connection import Connection  # noqa: PLC0415 - slow, and not needed to run

        return Connection(**self._entry(user))

    def volume_path(self, volume_id: str) -> Path:
        """The file that holds a volume's bytes."""
        return self.directory / "volumes" / volume_id

    def make_volume(
        self,
        name: str,
        size_gib: int = 1,
        content: bytes | Path | Callable[[Path], None] = b"",
        *,
        bootable: bool = False,
        image_metadata: Mapping[str, str] | None = None,
        description: str | None = None,
        volume_type: str = "",
        zone: str = "",
        metadata: dict[str, str] | None = None,
    ) -> str:
        """A volume that is available and holds `content` from its first byte on.

        Args:
            content: Bytes, or a file that is copied, or a function that gets the path.

        Returns:
            Its id.
        """
        with self.lock:
            volume = self.cinder.create(
                size_gib=size_gib,
                name=name,
                description=description,
                volume_type=volume_type,
                zone=zone,
                metadata=metadata,
                at_once=True,
            )
            volume.bootable = bootable
            volume.image_metadata.update(image_metadata or {})
            path = self.volume_path(volume.id)
        if callable(content):
            content(path)
        elif isinstance(content, Path):
            shutil.copyfile(content, path)
        else:
            with path.open("r+b") as file:
                file.write(content)
        if path.stat().st_size > size_gib * GIB:
            raise ValueError(f"{path.stat().st_size} bytes do not fit {size_gib} GiB")
        with path.open("r+b") as file:
            file.truncate(size_gib * GIB)
        return volume.id

    def expire_tokens(self) -> None:
        """Let every token issued so far be refused from now on."""
        with self.lock:
            self.keystone.expire_tokens()

    def leftovers(self) -> dict[str, list[str]]:
        """Names of servers, ports (but routers'), security groups (but default), floating IPs
        and volumes that exist now.
        """
        with self.lock:
            data = self.neutron.data
            groups = data["security_groups"].values()
            return {
                "servers": [server.name for server in self.nova.servers.values()],
                "floating ips": [
                    one["floating_ip_address"] for one in data["floatingips"].values()
                ],
                "ports": [
                    port["name"]
                    for port in data["ports"].values()
                    if port["device_owner"] != "network:router_interface"
                ],
                "security groups": [g["name"] for g in groups if g["name"] != "default"],
                "volumes": [volume.name for volume in self.cinder.volumes.values()],
            }


class EmbeddedClouds:
    """The pair east and west in one directory. A context manager; `faults` are per cloud."""

    def __init__(self, directory: Path, **options: object) -> None:
        self.clouds_yaml = directory.resolve() / "clouds.yaml"
        self.east = EmbeddedCloud("east", directory, **options)  # type: ignore[arg-type]
        self.west = EmbeddedCloud("west", directory, **options)  # type: ignore[arg-type]
        self._open = contextlib.ExitStack()

    def __enter__(self) -> EmbeddedClouds:
        with contextlib.ExitStack() as stack:
            stack.enter_context(self.east)
            stack.enter_context(self.west)
            self._open = stack.pop_all()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._open.close()
