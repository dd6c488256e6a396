"""What a project may use: flavors, images, networks, quota.

Sources of what is not obvious (api-ref of each service):
* Flavors: RAM is in MiB, disks in GiB; `OS-FLV-DISABLED:disabled` ones are listed to
  administrators.
* Images: sizes in bytes but `min_disk` in GiB and `min_ram` in MiB; `virtual_size` is
  what a qcow2 needs on disk, null until Glance has looked into it. Whatever is no
  standard field is a property.
* Networks: an administrator sees every project's.
* Limits: -1 is unlimited; the RAM limit is in MiB. Neutron has `quotas/{project}/details`
  only with the extension `quota_details`, and -1 there too.
  Cinder's `os-quota-sets` has all of volumes, single types as `gigabytes_<type>`, and any
  member of the project may read its own by default; `limits`, for all, has no types.
"""

from collections.abc import Callable, Collection
from typing import Final

from blockferry.errors import ForbiddenError, NotFoundError, PreconditionError
from blockferry.limits import GIB, MIB
from blockferry_controller.clouds.openstack.rest import Body, Rest, Service, segment
from blockferry_controller.clouds.port import Flavor, Image, Network, Quota

_IMAGE_FIELDS: Final = frozenset(
    {
        "id",
        "name",
        "status",
        "visibility",
        "protected",
        "checksum",
        "size",
        "virtual_size",
        "min_disk",
        "min_ram",
        "created_at",
        "updated_at",
        "owner",
        "self",
        "file",
        "schema",
        "locations",
        "direct_url",
        "tags",
    }
)

_VOLUMES: Final = ("volumes", "gigabytes")
_TYPED: Final = ("volumes_", "gigabytes_")


class Catalogue:
    """What one project may use. Thread-safe."""

    def __init__(self, rest: Rest, project_id: str) -> None:
        self._rest = rest
        self._project_id = project_id

    def flavors(self) -> list[Flavor]:
        """See Cloud.list_flavors."""
        bodies = self._rest.items(Service.COMPUTE, "/flavors/detail", "flavors", "list flavors")
        return [
            Flavor(
                str(body["id"]),
                str(body["name"]),
                int(body["vcpus"]),
                int(body["ram"]) * MIB,
                int(body.get("disk") or 0) * GIB,
            )
            for body in bodies
            if not body.get("OS-FLV-DISABLED:disabled")
        ]

    def images(self) -> list[Image]:
        """See Cloud.list_images. `min_disk_bytes` is at least the image's virtual size."""
        bodies = self._rest.items(
            Service.IMAGE, "/images", "images", "list images", {"status": "active"}
        )
        return [_read_image(body) for body in bodies if body.get("status") == "active"]

    def networks(self) -> list[Network]:
        """See Cloud.list_networks."""
        subnets = self._rest.items(Service.NETWORK, "/subnets", "subnets", "list subnets")
        versions = {str(one["id"]): int(one["ip_version"]) for one in subnets}
        bodies = self._rest.items(Service.NETWORK, "/networks", "networks", "list networks")
        return [_read_network(body, versions) for body in bodies if self._may_use(body)]

    def quota(self, names: Collection[str] = ()) -> Quota:
        """See Cloud.quota."""
        left: dict[str, int | None] = {}
        for tells_of, ask in (
            (_of_compute, self._compute_left),
            (_of_volumes, self._volumes_left),
            (_of_network, self._network_left),
        ):
            if not names or any(map(tells_of, names)):
                left |= _asked(ask)
        return Quota(left)

    def _may_use(self, network: Body) -> bool:
        owner = str(network.get("project_id") or network.get("tenant_id") or "")
        open_to_all = bool(network.get("shared") or network.get("router:external"))
        return not self._project_id or open_to_all or owner == self._project_id

    def _compute_left(self) -> dict[str, int | None]:
        limits = self._limits(Service.COMPUTE)
        ram_mib = _left(limits, "maxTotalRAMSize", "totalRAMUsed")
        return {
            "instances": _left(limits, "maxTotalInstances", "totalInstancesUsed"),
            "cores": _left(limits, "maxTotalCores", "totalCoresUsed"),
            "ram_bytes": None if ram_mib is None else ram_mib * MIB,
        }

    def _volumes_left(self) -> dict[str, int | None]:
        """All, and of types only where there is a limit: a cloud has many, and few such quotas."""
        path = f"/os-quota-sets/{segment(self._project_id)}"
        try:
            answer = self._rest.get(
                Service.VOLUME, path, "read the volume quota", {"usage": "True"}
            )
        except (NotFoundError, ForbiddenError, PreconditionError):
            return self._all_volumes_left()
        quotas = answer.get("quota_set", {})
        left = {str(name): _detailed_left(quota) for name, quota in quotas.items()}
        return {
            name: amount
            for name, amount in left.items()
            if name in _VOLUMES or (name.startswith(_TYPED) and amount is not None)
        }

    def _all_volumes_left(self) -> dict[str, int | None]:
        """What Cinder tells of whoever may not read quotas: nothing of single types."""
        limits = self._limits(Service.VOLUME)
        return {
            "volumes": _left(limits, "maxTotalVolumes", "totalVolumesUsed"),
            "gigabytes": _left(limits, "maxTotalVolumeGigabytes", "totalGigabytesUsed"),
        }

    def _network_left(self) -> dict[str, int | None]:
        path = f"/quotas/{segment(self._project_id)}/details.json"
        quota = self._rest.get(Service.NETWORK, path, "read the network quota")["quota"]
        return {
            f"{resource}s": _detailed_left(quota.get(resource))
            for resource in ("port", "security_group", "security_group_rule")
        } | {"floating_ips": _detailed_left(quota.get("floatingip"))}

    def _limits(self, service: Service) -> Body:
        answer = self._rest.get(service, "/limits", "read limits")
        return dict(answer["limits"]["absolute"])


def _of_compute(name: str) -> bool:
    return name in {"instances", "cores", "ram_bytes"}


def _of_volumes(name: str) -> bool:
    return name in _VOLUMES or name.startswith(_TYPED)


def _of_network(name: str) -> bool:
    return not _of_compute(name) and not _of_volumes(name)


def _asked(ask: Callable[[], dict[str, int | None]]) -> dict[str, int | None]:
    """What the service tells; nothing where it does not offer or allow the question."""
    try:
        return ask()
    except (NotFoundError, ForbiddenError, PreconditionError):
        return {}


def _left(limits: Body, limit: str, used: str) -> int | None:
    if limits.get(limit) is None or int(limits[limit]) < 0:
        return None
    return max(int(limits[limit]) - int(limits.get(used) or 0), 0)


def _detailed_left(quota: object) -> int | None:
    """What one quota leaves; Neutron says `used`, Cinder `in_use`."""
    if not isinstance(quota, dict) or int(quota.get("limit", -1)) < 0:
        return None
    taken = int(quota.get("used") or quota.get("in_use") or 0) + int(quota.get("reserved") or 0)
    return max(int(quota["limit"]) - taken, 0)


def _read_image(body: Body) -> Image:
    needed = max(int(body.get("min_disk") or 0) * GIB, int(body.get("virtual_size") or 0))
    return Image(
        id=str(body["id"]),
        name=str(body.get("name") or ""),
        status=str(body["status"]),
        min_disk_bytes=needed,
        min_ram_bytes=int(body.get("min_ram") or 0) * MIB,
        size_bytes=int(body.get("size") or 0),
        created_at=str(body.get("created_at") or ""),
        properties={
            key.lower(): str(value)
            for key, value in body.items()
            if key not in _IMAGE_FIELDS and value is not None
        },
    )


def _read_network(body: Body, versions: dict[str, int]) -> Network:
    subnets = [versions.get(str(subnet)) for subnet in body.get("subnets") or []]
    return Network(
        id=str(body["id"]),
        name=str(body.get("name") or ""),
        external=bool(body.get("router:external")),
        shared=bool(body.get("shared")),
        ip_versions=frozenset(version for version in subnets if version is not None),
    )
