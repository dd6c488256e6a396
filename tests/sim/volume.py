"""A volume and the states it goes through; its bytes are a sparse file.

    creating → available ⇄ reserved → attaching → in-use → detaching → available
             ↘ error                                      available → deleting → gone

Nova drives the second line of states through `reserve` … `detached`.
"""

from __future__ import annotations

import os
import subprocess
import uuid
from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import TYPE_CHECKING

from tests.sim.guest import root_volume
from tests.sim.guest.host import CHECKOUT
from tests.sim.guest.mounts import Image
from tests.sim.http import ApiError, Json

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.sim.cloud import EmbeddedCloud

GIB = 1 << 30
DELETABLE = {"available", "error", "error_restoring", "error_extending", "error_managing"}
_OF_GLANCE = frozenset(
    (
        *("id", "name", "status", "visibility", "protected", "os_hidden", "owner", "virtual_size"),
        *("os_hash_algo", "os_hash_value", "created_at", "updated_at", "tags", "self", "file"),
        "schema",
    )
)
"""What a volume made of an image does not know of it; `checksum`, `size` and others it does."""
GARBAGE_BYTES = 8 << 20
"""How much of a thick volume is garbage; enough to catch whoever assumes zeros."""


def now() -> str:
    """Cinder's notation of this moment."""
    return datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%S.%f")


@dataclass
class Attachment:
    """A volume's tie to a server."""

    server_id: str
    device: str
    attachment_id: str = field(default_factory=lambda: str(uuid.uuid4()))
    attached_at: str = field(default_factory=now)


@dataclass
class Volume:
    """What Cinder's database knows of a volume."""

    id: str
    name: str
    description: str | None
    size_gib: int
    volume_type: str
    zone: str
    metadata: dict[str, str]
    status: str = "creating"
    bootable: bool = False
    read_only: bool | None = None
    multiattach: bool = False
    encrypted: bool = False
    image_metadata: dict[str, str] = field(default_factory=dict)
    attachments: list[Attachment] = field(default_factory=list)
    created_at: str = field(default_factory=now)
    updated_at: str | None = None

    def view(self, project_id: str, version: tuple[int, int], *, admin: bool) -> Json:
        """The volume as `GET /volumes/{id}` shows it at a microversion."""
        attached = self.attachments if self.status in {"in-use", "detaching"} else []
        view: Json = {
            "id": self.id,
            "name": self.name,
            "description": self.description,
            "size": self.size_gib,
            "status": self.status,
            "volume_type": self.volume_type,
            "availability_zone": self.zone,
            "bootable": str(self.bootable).lower(),
            "encrypted": self.encrypted,
            "multiattach": self.multiattach,
            "metadata": self._visible_metadata(),
            "attachments": [self._attachment_view(one, admin=admin) for one in attached],
            "snapshot_id": None,
            "source_volid": None,
            "consistencygroup_id": None,
            "replication_status": None,
            "created_at": self.created_at,
            "updated_at": self.updated_at,
            "os-vol-tenant-attr:tenant_id": project_id,
        }
        if admin:
            view["os-vol-host-attr:host"] = f"sim@{self.volume_type}#pool"
            view["os-vol-mig-status-attr:migstat"] = None
            view["migration_status"] = None
        if self.image_metadata:
            view["volume_image_metadata"] = dict(self.image_metadata)
        if version >= (3, 13):
            view["group_id"] = None
        if version >= (3, 48):
            view.update(shared_targets=False, service_uuid=None)
        if version >= (3, 65):
            view["consumes_quota"] = True
        return view

    def _visible_metadata(self) -> dict[str, str]:
        """Users' metadata and the part of the admin metadata that Cinder mixes into it."""
        shown = dict(self.metadata)
        if self.read_only is not None:
            shown["readonly"] = str(self.read_only)
        return shown

    def _attachment_view(self, attachment: Attachment, *, admin: bool) -> Json:
        return {
            "id": self.id,
            "attachment_id": attachment.attachment_id,
            "volume_id": self.id,
            "server_id": attachment.server_id,
            "host_name": "sim" if admin else None,
            "device": attachment.device,
            "attached_at": attachment.attached_at,
        }


class VolumeStates:
    """Moves volumes from state to state, in their time. The cloud's lock is held."""

    def __init__(self, cloud: EmbeddedCloud, volumes: dict[str, Volume]) -> None:
        self._cloud = cloud
        self._volumes = volumes

    def create(self, volume: Volume, *, at_once: bool = False) -> None:
        """Begin: `creating`, later `available` or `error`."""
        self._volumes[volume.id] = volume
        if at_once:
            make_file(self._cloud.volume_path(volume.id), volume.size_gib, self._cloud.thick)
            self.set(volume, "available")
            return

        def finish() -> None:
            if self._cloud.faults.happens("volume error"):
                self.set(volume, "error")
                return
            make_file(self._cloud.volume_path(volume.id), volume.size_gib, self._cloud.thick)
            self.set(volume, "available")

        self._later(volume, "creating", self._cloud.timings.volume_create, finish)

    def create_from_image(self, volume: Volume, image: Json) -> None:
        """Begin: `creating`, `downloading`, later `available` or `error`."""
        self._volumes[volume.id] = volume
        path = self._cloud.volume_path(volume.id)
        about = Image(described(image), self._cloud.directory / "programs", CHECKOUT)

        def download() -> None:
            try:
                make_file(path, volume.size_gib, self._cloud.thick)
                root_volume.write(path, about)
            except (OSError, subprocess.SubprocessError):
                status = "error"
            else:
                status = "available"
            with self._cloud.lock:
                volume.bootable = True
                volume.image_metadata.update(described(image))
                self.set(volume, status)

        def begin() -> None:
            self.set(volume, "downloading")
            self._cloud.aside(download)

        self._later(volume, "creating", self._cloud.timings.volume_create, begin)

    def delete(self, volume: Volume) -> None:
        """Begin: `deleting`, later gone."""

        def finish() -> None:
            self._volumes.pop(volume.id, None)
            self._cloud.volume_path(volume.id).unlink(missing_ok=True)

        self._later(volume, "deleting", self._cloud.timings.volume_delete, finish)

    def reserve(self, volume: Volume, server_id: str = "", device: str = "") -> None:
        """Nova's API has accepted an attachment; Cinder keeps a record of it from here on.

        Raises:
            ApiError: 400 when the volume is not available.
        """
        if volume.status != "available":
            raise ApiError(
                400,
                f"Invalid volume: volume {volume.id} status must be 'available' for attachment. "
                f"Currently in status '{volume.status}'",
            )
        volume.attachments = [Attachment(server_id, device)]
        self.set(volume, "reserved")

    def unreserve(self, volume: Volume) -> None:
        """The attachment did not come about."""
        volume.attachments.clear()
        self.set(volume, "available")

    def attach(self, volume: Volume, server_id: str, device: str, done: Callable[[], None]) -> None:
        """The compute host attaches: `attaching`, later `in-use`."""
        kept = volume.attachments[0].attachment_id if volume.attachments else str(uuid.uuid4())
        volume.attachments = [Attachment(server_id, device, kept)]

        def finish() -> None:
            if not volume.attachments:  # the server was deleted in the meantime
                return
            self.set(volume, "in-use")
            done()

        self._later(volume, "attaching", self._cloud.timings.attach, finish)

    def begin_detaching(self, volume: Volume) -> None:
        """Nova's API has accepted a detachment.

        Raises:
            ApiError: 400 when the volume is not attached.
        """
        if volume.status != "in-use":
            raise ApiError(
                400,
                "Invalid volume: Invalid volume: Unable to detach volume. Volume status must be "
                "'in-use' and attach_status must be 'attached' to detach.",
            )
        self.set(volume, "detaching")

    def detach(self, volume: Volume, done: Callable[[], None]) -> None:
        """The compute host detaches: `detaching`, later `available`."""

        def finish() -> None:
            done()
            self.unreserve(volume)

        self._later(volume, "detaching", self._cloud.timings.detach, finish)

    def set(self, volume: Volume, status: str) -> None:
        """Set a status now."""
        volume.status = status
        volume.updated_at = now()

    def _later(
        self, volume: Volume, status: str, seconds: float, finish: Callable[[], None]
    ) -> None:
        self.set(volume, status)
        if not self._cloud.faults.happens(f"stick {status}"):
            self._cloud.timeline.after(seconds, finish)


def described(image: Json) -> dict[str, str]:
    """What Cinder keeps of an image with a volume: its properties, and a few of its own."""
    own = {key: value for key, value in image.items() if key not in _OF_GLANCE}
    return {
        "image_id": image["id"],
        "image_name": image["name"],
        **{key: str(value) for key, value in own.items()},
    }


def make_file(path: Path, size_gib: int, thick: bool) -> None:
    """Make a volume's sparse file; a thick one begins and ends with garbage."""
    size_bytes = size_gib * GIB
    with path.open("xb") as file:
        file.truncate(size_bytes)
        if thick:
            file.write(os.urandom(GARBAGE_BYTES))
            file.seek(size_bytes - GARBAGE_BYTES)
            file.write(os.urandom(GARBAGE_BYTES))
