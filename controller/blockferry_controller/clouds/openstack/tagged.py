"""All that carries our tag, whatever it is, in the order in which it can be deleted."""

from blockferry_controller.clouds.openstack.floating import FloatingIps
from blockferry_controller.clouds.openstack.networking import Networking
from blockferry_controller.clouds.openstack.servers import Servers
from blockferry_controller.clouds.openstack.volumes import Volumes
from blockferry_controller.clouds.port import Resource, ResourceKind


def find_tagged(
    servers: Servers,
    floating_ips: FloatingIps,
    networking: Networking,
    volumes: Volumes,
    migration_id: str | None,
) -> list[Resource]:
    """See Cloud.find_resources."""
    found = [
        Resource(ResourceKind.SERVER, server.id, server.name, tag)
        for server, tag in servers.tagged(migration_id)
    ]
    found += [
        Resource(ResourceKind.FLOATING_IP, resource_id, address, tag)
        for resource_id, address, tag in floating_ips.tagged(migration_id)
    ]
    for kind, collection in (
        (ResourceKind.PORT, "ports"),
        (ResourceKind.SECURITY_GROUP, "security-groups"),
    ):
        found += [
            Resource(kind, resource_id, name, tag)
            for resource_id, name, tag in networking.tagged(collection, migration_id)
        ]
    found += [
        Resource(ResourceKind.VOLUME, volume.id, volume.name, tag)
        for volume, tag in volumes.tagged(migration_id)
    ]
    return found
