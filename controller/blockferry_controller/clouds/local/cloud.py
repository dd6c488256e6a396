"""The cloud port on this machine, for `copy` and `digest`: same steps, no OpenStack.

What a migration made is remembered as small JSON files below
`<directory>/<migration id>/`, one a resource: they are the tags of this cloud.
Security groups do not exist: agents listen on loopback and trust only their
migration's certificates.
"""

import json
import os
import secrets
import shutil
import socket
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from msgspec import Struct

from blockferry import __version__
from blockferry.errors import BusyError, PreconditionError
from blockferry.limits import AGENT_PORT
from blockferry_controller.clouds.local import paths
from blockferry_controller.clouds.local.instance import LocalInstance
from blockferry_controller.clouds.port import (
    AGENT_ENDED,
    ALL_KINDS,
    Access,
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

_KINDS: Final = {
    "server": ResourceKind.SERVER,
    "port": ResourceKind.PORT,
    "volume": ResourceKind.VOLUME,
}
_PORT_TRIES: Final = 20


class LocalCloud(Struct, frozen=True):
    """This machine as one project of one cloud.

    Attributes:
        directory: Where instances and tags live; made on demand, mode 0700.
    """

    directory: Path

    @property
    def name(self) -> str:
        """See Cloud."""
        return "local"

    @property
    def identity(self) -> str:
        """See Cloud."""
        return "local"

    def find_volume(self, reference: str) -> Volume:
        """See Cloud; `reference` is a path."""
        return paths.find(Path(reference))

    def list_volumes(self) -> Sequence[Volume]:
        """See Cloud; the files of a machine are not volumes until somebody names one."""
        return ()

    def ensure_volume(self, tag: Tag, request: VolumeRequest) -> Volume:
        """See Cloud; the request's name is a path, made when it is missing."""
        path = Path(request.name)
        made = not os.path.lexists(path)
        if made:
            paths.make(path, request.size_bytes)
        volume = paths.find(path)
        if made:
            self._remember(tag, {"id": volume.id, "path": str(path)})
        return volume

    def release_volume(self, volume_id: str) -> None:
        """See Cloud."""
        for tag, facts in self._tags("volume"):
            if facts["id"] == volume_id:
                self._forget(tag)

    def set_read_only(self, volume_id: str) -> None:
        """See Cloud: files have modes instead."""

    def access(self) -> Access:
        """See Cloud: this machine is always there."""
        return Access()

    def list_volume_types(self) -> Sequence[VolumeType]:
        """See Cloud: none."""
        return ()

    def list_volume_zones(self) -> Sequence[str]:
        """See Cloud: none."""
        return ()

    def list_flavors(self) -> Sequence[Flavor]:
        """See Cloud: this machine is the only one."""
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        return (Flavor("this-machine", "this machine", os.cpu_count() or 1, memory, 0),)

    def list_images(self) -> Sequence[Image]:
        """See Cloud: this installation is a prepared image."""
        properties = {"blockferry_agent": __version__, "architecture": "x86_64"}
        return (Image("this-machine", "this installation", "active", 0, 0, 0, "", properties),)

    def list_networks(self) -> Sequence[Network]:
        """See Cloud: the loopback interface, which all of this machine shares."""
        return (Network("loopback", "loopback", False, True, frozenset({4})),)

    def quota(self, names: Collection[str] = ()) -> Quota:
        """See Cloud: none."""
        del names
        return Quota({})

    def ensure_security_group(self, tag: Tag, rules: Sequence[IngressRule]) -> str:
        """See Cloud: nothing to make."""
        del tag, rules
        return ""

    def ensure_port(
        self, tag: Tag, network_id: str, security_group_id: str, ip_version: int = 0
    ) -> Port:
        """See Cloud: a loopback address of its own, on which the agent's port is free."""
        del network_id, security_group_id
        if ip_version == 6:
            raise PreconditionError(
                "PORT_WITHOUT_ADDRESS",
                "this machine has one IPv6 loopback address only, too few for two agents; "
                "leave --ip-version 6 out",
            )
        server = tag.resource.replace("port", "server")
        self._instance(Tag(tag.migration_id, server)).end_orphan()
        known = self._facts(tag)
        if known is None or not _free(known["address"]):
            known = {"id": tag.name, "address": _free_address()}
            self._remember(tag, known)
        return Port(tag.name, (known["address"],))

    def outward_addresses(self, network_id: str) -> Sequence[str]:
        """See Cloud: nothing leaves this machine."""
        del network_id
        return ()

    def ensure_floating_ip(self, tag: Tag, port: Port, network_id: str) -> FloatingIp:
        """See Cloud: agents are on one machine."""
        del tag, network_id
        raise PreconditionError(
            "FLOATING_IP_UNROUTED",
            f"this machine has no floating IPs; {port.addresses[0]} is reached as it is",
        )

    def ensure_server(self, tag: Tag, request: ServerRequest) -> Server:
        """See Cloud: an agent process on this machine."""
        instance = self._instance(tag)
        self._remember(tag, {"id": tag.name})
        instance.end_orphan()
        if not instance.running():
            instance.start(request.user_data)
        return Server(tag.name, tag.name, "ACTIVE")

    def console_log(self, server_id: str, lines: int) -> str:
        """See Cloud: what the process said, and whether it has ended."""
        for tag, facts in self._tags("server"):
            if facts["id"] == server_id:
                instance = self._instance(tag)
                said = instance.console().splitlines()[-lines:]
                if not instance.running():
                    said.append(f"{AGENT_ENDED}: {said[-1] if said else 'it said nothing'}")
                return "\n".join(said)
        return ""

    def attach_volume(self, server_id: str, volume_id: str) -> None:
        """See Cloud: the agent opens the path itself."""

    def detach_volume(self, server_id: str, volume_id: str) -> None:
        """See Cloud: nothing to do."""

    def delete_server(self, server_id: str) -> None:
        """See Cloud."""
        for tag, facts in self._tags("server"):
            if facts["id"] == server_id:
                self._instance(tag).stop()
                shutil.rmtree(self._place(tag), ignore_errors=True)
                self._forget(tag)

    def delete_floating_ip(self, floating_ip_id: str) -> None:
        """See Cloud: there are none."""

    def delete_port(self, port_id: str) -> None:
        """See Cloud."""
        for tag, facts in self._tags("port"):
            if facts["id"] == port_id:
                self._forget(tag)

    def delete_security_group(self, group_id: str) -> None:
        """See Cloud: there are none."""

    def delete_volume(self, volume_id: str) -> None:
        """See Cloud: removes a file that ensure_volume made, never another."""
        for tag, facts in self._tags("volume"):
            if facts["id"] == volume_id:
                Path(facts["path"]).unlink(missing_ok=True)
                self._forget(tag)

    def find_resources(
        self, migration_id: str | None = None, kinds: Collection[ResourceKind] = ALL_KINDS
    ) -> Sequence[Resource]:
        """See Cloud."""
        order = list(ResourceKind)
        found = [
            Resource(_KINDS[kind], facts["id"], tag.name, tag)
            for kind in _KINDS
            if _KINDS[kind] in kinds
            for tag, facts in self._tags(kind)
            if migration_id in (None, tag.migration_id)
        ]
        return sorted(found, key=lambda resource: order.index(resource.kind))

    def close(self) -> None:
        """See Cloud."""

    def _instance(self, tag: Tag) -> LocalInstance:
        return LocalInstance(self._place(tag))

    def _place(self, tag: Tag) -> Path:
        return self.directory / tag.migration_id / tag.resource

    def _tags(self, kind: str) -> list[tuple[Tag, Mapping[str, Any]]]:
        files = sorted(self.directory.glob(f"*/*-{kind}.json"))
        tags = [Tag(file.parent.name, file.stem) for file in files]
        return [(tag, facts) for tag in tags if (facts := self._facts(tag)) is not None]

    def _facts(self, tag: Tag) -> Mapping[str, Any] | None:
        try:
            text = self._place(tag).with_suffix(".json").read_text(encoding="utf-8")
            facts = json.loads(text)
        except (OSError, ValueError, RecursionError):
            # What a power cut has left of it is made anew by whoever needs it.
            return None
        return facts if _are_facts(facts) else None

    def _remember(self, tag: Tag, facts: Mapping[str, Any]) -> None:
        place = self._place(tag)
        for directory in (self.directory, place.parent, place):
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        fresh = place.with_suffix(".new")
        fresh.write_text(json.dumps(facts), encoding="utf-8")
        fresh.replace(place.with_suffix(".json"))

    def _forget(self, tag: Tag) -> None:
        place = self._place(tag)
        place.with_suffix(".json").unlink(missing_ok=True)
        for directory in (place, place.parent):
            try:
                directory.rmdir()
            except OSError:
                return


def _are_facts(found: object) -> bool:
    return (
        isinstance(found, dict)
        and "id" in found
        and all(isinstance(value, str) for value in found.values())
    )


def _free(address: str) -> bool:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((address, AGENT_PORT))
        except OSError:
            return False
        return True


def _free_address() -> str:
    """An address of 127.0.0.0/8 that nobody uses: the whole block is local (RFC 1122)."""
    for _ in range(_PORT_TRIES):
        octets = [secrets.randbelow(254) + 1 for _ in range(3)]
        address = ".".join(map(str, [127, *octets]))
        if _free(address):
            return address
    raise BusyError(
        "LOOPBACK_BUSY",
        f"TCP port {AGENT_PORT} is taken on every loopback address tried; end what listens on it",
    )
