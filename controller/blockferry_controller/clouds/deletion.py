"""Which verb deletes what."""

from blockferry_controller.clouds.port import Cloud, Resource, ResourceKind


def delete(cloud: Cloud, resource: Resource) -> None:
    """Delete it from `cloud`, where it was found; what is gone is deleted.

    Raises:
        BlockferryError: as the verb of its kind.
    """
    verbs = {
        ResourceKind.SERVER: cloud.delete_server,
        ResourceKind.FLOATING_IP: cloud.delete_floating_ip,
        ResourceKind.PORT: cloud.delete_port,
        ResourceKind.SECURITY_GROUP: cloud.delete_security_group,
        ResourceKind.VOLUME: cloud.delete_volume,
    }
    verbs[resource.kind](resource.id)
