"""All that carries our tag, whatever it is, in the order in which it can be deleted.

Each kind has a list of its own at the cloud, and only those asked for are read.
"""

from collections.abc import Callable, Collection, Mapping
from typing import Final, TypeAlias

from blockferry_controller.clouds.openstack.floating import FloatingIps
from blockferry_controller.clouds.openstack.networking import Networking
from blockferry_controller.clouds.openstack.servers import Servers
from blockferry_controller.clouds.openstack.volumes import Volumes
from blockferry_controller.clouds.port import Resource, ResourceKind, Tag

_List: TypeAlias = Callable[[str | None], list[tuple[str, str, Tag]]]
"""Ids, names and tags of one kind: of one migration, or of any."""


class Tagged:
    """What is ours in one project. Thread-safe."""

    def __init__(
        self, servers: Servers, floating_ips: FloatingIps, networking: Networking, volumes: Volumes
    ) -> None:
        lists: Mapping[ResourceKind, _List] = {
            ResourceKind.SERVER: lambda own: [
                (server.id, server.name, tag) for server, tag in servers.tagged(own)
            ],
            ResourceKind.FLOATING_IP: floating_ips.tagged,
            ResourceKind.PORT: lambda own: networking.tagged("ports", own),
            ResourceKind.SECURITY_GROUP: lambda own: networking.tagged("security-groups", own),
            ResourceKind.VOLUME: lambda own: [
                (volume.id, volume.name, tag) for volume, tag in volumes.tagged(own)
            ],
        }
        self._lists: Final = {kind: lists[kind] for kind in ResourceKind}

    def find(self, migration_id: str | None, kinds: Collection[ResourceKind]) -> list[Resource]:
        """See Cloud.find_resources."""
        return [
            Resource(kind, resource_id, name, tag)
            for kind, tagged in self._lists.items()
            if kind in kinds
            for resource_id, name, tag in tagged(migration_id)
        ]
