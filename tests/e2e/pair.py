"""Two real clouds as their plain tenant sees them, and guests to put volumes to use.

Which clouds: see the README beside this file. Nothing here knows more of them
than clouds.yaml says and their APIs answer.
"""

import base64
import contextlib
import re
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import openstack
from openstack.connection import Connection

from blockferry.limits import GIB
from blockferry_controller.clouds.openstack import connect
from blockferry_controller.clouds.port import MIGRATION_KEY, Flavor, Image, Network
from blockferry_controller.migration.choose import choose_flavor, choose_image, choose_network
from tests.e2e.scripts import MARK

GUEST_SECONDS: Final = 900
"""Longest wait for a guest's word: an emulated one needs more than a minute to boot."""
STATE_SECONDS: Final = 600
_LISTED: Final[dict[str, Callable[[Connection], Iterable[Any]]]] = {
    "server": lambda sdk: sdk.compute.servers(),
    "port": lambda sdk: sdk.network.ports(project_id=sdk.current_project_id),
    "security group": lambda sdk: sdk.network.security_groups(project_id=sdk.current_project_id),
    "floating IP": lambda sdk: sdk.network.ips(project_id=sdk.current_project_id),
}
_TOLD: Final = re.compile(rf"{MARK} (\S+) (\S+) ?(.*)")


@dataclass(frozen=True)
class Existing:
    """All that a migration could have made or changed in a project.

    Attributes:
        ids: By kind; of `quota`, what is limited and to what.
        volumes: What Cinder says of each volume, by id, but for when that was changed.
    """

    ids: dict[str, frozenset[str]]
    volumes: dict[str, Any]

    def since(self, before: "Existing") -> dict[str, list[str]]:
        """What came, went and changed since `before`, by kind; empty when nothing did."""
        changed = [
            volume_id
            for volume_id, told in self.volumes.items()
            if told != before.volumes.get(volume_id, told)
        ]
        came = {
            kind: sorted(found ^ before.ids[kind])
            for kind, found in self.ids.items()
            if found != before.ids[kind]
        }
        return came | ({"changed volume": sorted(changed)} if changed else {})


@dataclass
class TenantCloud:
    """One of the two clouds, as the user whom clouds.yaml names.

    Attributes:
        wheels: Where its instances install from; empty for the package index.
        wheels_ipv6: Likewise for those that have IPv6 only.
    """

    name: str
    wheels: str = ""
    wheels_ipv6: str = ""
    sdk: Connection = field(init=False)

    def __post_init__(self) -> None:
        self.sdk = openstack.connect(cloud=self.name)

    def existing(self) -> Existing:
        """Everything there is in the project, and its limits."""
        volumes = {}
        for volume in self.sdk.block_storage.volumes():
            volumes[str(volume.id)] = volume.to_dict()
            # Whoever borrows a volume cannot help these two.
            del volumes[str(volume.id)]["updated_at"], volumes[str(volume.id)]["location"]
        ids = {kind: self.ids(kind) for kind in _LISTED}
        ids |= {"volume": frozenset(volumes), "quota": frozenset(self._limits())}
        return Existing(ids, volumes)

    def ids(self, kind: str) -> frozenset[str]:
        """Ids of all there is of a kind: server, port, security group, floating IP."""
        return frozenset(str(one.id) for one in _LISTED[kind](self.sdk))

    def _limits(self) -> Iterator[str]:
        project = str(self.sdk.current_project_id)
        for quotas in (
            self.sdk.compute.get_quota_set(project),
            self.sdk.block_storage.get_quota_set(project),
            self.sdk.network.get_quota(project),
        ):
            for name, limit in quotas.to_dict().items():
                if isinstance(limit, int):
                    yield f"{name} {limit}"

    def make_volume(self, size_gib: int, **details: Any) -> str:
        """A new volume, available; returns its id."""
        details.setdefault("name", f"{MARK}-{uuid.uuid4().hex[:8]}")
        made = self.sdk.block_storage.create_volume(size=size_gib, **details)
        self.wait(made.id, "available")
        return str(made.id)

    def volume(self, volume_id: str) -> Any:
        """What Cinder says of it."""
        return self.sdk.block_storage.get_volume(volume_id)

    def wait(self, volume_id: str, status: str) -> None:
        """Return once the volume has the status."""
        until(
            lambda: self.volume(volume_id).status == status,
            f"volume {volume_id} in {self.name} to be {status}",
            STATE_SECONDS,
        )

    def delete_volume(self, volume_id: str) -> None:
        """Delete it; returns once it is gone."""
        sdk = self.sdk.block_storage
        sdk.delete_volume(volume_id, ignore_missing=True)
        until(
            lambda: volume_id not in {one.id for one in sdk.volumes(details=False)},
            f"volume {volume_id} in {self.name} to be gone",
            STATE_SECONDS,
        )

    @contextlib.contextmanager
    def bootable_volume(self, properties: Mapping[str, str]) -> Iterator[Any]:
        """A volume made of the stock image, with such image properties besides."""
        image, _, _ = self._choice()
        size_gib = max(-(-image.min_disk_bytes // GIB), 3)
        volume_id = self.make_volume(size_gib, image_id=image.id)
        try:
            volume = self.volume(volume_id)
            self.sdk.block_storage.set_volume_image_metadata(volume, **properties)
            yield self.volume(volume_id)
        finally:
            self.delete_volume(volume_id)

    def guest(self, script: str, boot_volume: str = "") -> "Guest":
        """A server that runs `script` as root, ACTIVE; its end deletes it, its port with it."""
        image, flavor, network = self._choice()
        root: dict[str, Any] = {"image_id": image.id}
        if boot_volume:
            mapping = {"boot_index": 0, "source_type": "volume", "destination_type": "volume"}
            root = {"block_device_mapping": [{**mapping, "uuid": boot_volume}]}
        server = self.sdk.compute.create_server(
            name=f"{MARK}-{uuid.uuid4().hex[:8]}",
            flavor_id=flavor.id,
            networks=[{"uuid": network.id}],
            user_data=base64.b64encode(script.encode()).decode(),
            config_drive=True,
            **root,
        )
        guest = Guest(self, str(server.id))
        try:
            self.sdk.compute.wait_for_server(server, wait=STATE_SECONDS)
        except BaseException:
            guest.delete()
            raise
        return guest

    def _choice(self) -> tuple[Image, Flavor, Network]:
        """The image, flavor and network that a migration would choose, too."""
        with contextlib.closing(connect(self.name)) as cloud:
            image = choose_image(cloud.list_images(), "", "")
            flavor = choose_flavor(cloud.list_flavors(), image, "")
            return image, flavor, choose_network(cloud.list_networks(), "")

    def server_of(self, migration_id: str) -> str:
        """The id of the instance that a migration has here."""
        (found,) = [
            str(server.id)
            for server in self.sdk.compute.servers()
            if server.metadata.get(MIGRATION_KEY) == migration_id
        ]
        return found

    def delete_server(self, server_id: str) -> None:
        """Delete it; returns once it is gone and its port, too."""
        ports = [port.id for port in self.sdk.network.ports(device_id=server_id)]
        self.sdk.compute.delete_server(server_id, ignore_missing=True)

        def gone() -> bool:
            return server_id not in self.ids("server") and self.ids("port").isdisjoint(ports)

        until(gone, f"server {server_id} in {self.name} to be gone", STATE_SECONDS)


@dataclass
class Guest:
    """A server whose script tells on its console what it finds: `MARK SUBJECT VERB TEXT`."""

    cloud: TenantCloud
    id: str

    def __enter__(self) -> "Guest":
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.delete()

    def delete(self) -> None:
        """Delete it and its port; gone already is well."""
        self.cloud.delete_server(self.id)

    def hears(self, subject: str, verb: str) -> str:
        """The text after that word, once the guest has said it."""
        said: dict[tuple[str, str], str] = {}

        def heard() -> bool:
            log = self.cloud.sdk.compute.get_server_console_output(self.id)["output"] or ""
            for line in log.splitlines():
                if match := _TOLD.search(line):
                    said[match[1], match[2]] = match[3].strip()
            assert (subject, "failed") not in said, said
            return (subject, verb) in said

        until(heard, f"{subject} {verb} from {self.id} in {self.cloud.name}", GUEST_SECONDS, 2.0)
        return said[subject, verb]

    def look_at(self, volume_id: str) -> str:
        """Attach the volume, have its files' checksums told, detach it; returns them."""
        self.hears("guest", "ready")
        with self.attached(volume_id):
            return self.hears(volume_id[:20], "holds")

    @contextlib.contextmanager
    def attached(self, volume_id: str) -> Iterator[None]:
        """The volume is in the guest; the script must have left it when this ends."""
        self.cloud.sdk.compute.create_volume_attachment(self.id, volume=volume_id)
        self.cloud.wait(volume_id, "in-use")
        try:
            yield
        finally:
            self.cloud.sdk.compute.delete_volume_attachment(self.id, volume_id)
            self.cloud.wait(volume_id, "available")


def until(holds: Callable[[], bool], what: str, seconds: float, pause: float = 1.0) -> None:
    """Return once `holds()`.

    Raises:
        TimeoutError: it did not within `seconds`.
    """
    deadline = time.monotonic() + seconds
    while not holds():
        if time.monotonic() > deadline:
            raise TimeoutError(f"waited {seconds:.0f} s for {what}")
        time.sleep(pause)
