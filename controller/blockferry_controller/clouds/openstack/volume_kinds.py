"""Volume types and zones of one project.

Sources of what is not obvious (api-ref block-storage v3):
* `extra_specs` are shown to administrators only; since Xena everybody sees the few that
  the operator's `user_visible_extra_specs` names, `multiattach` usually among them. So an
  empty one tells nothing.
* `/types/{id}/encryption` is for administrators by default, and `{}` for a type without.
* The type of a volume that names none is `/types/default`, 404 where there is none.
"""

from blockferry.errors import BlockferryError, ForbiddenError, NotFoundError, PreconditionError
from blockferry_controller.clouds.openstack.rest import Body, Rest, Service, segment
from blockferry_controller.clouds.port import VolumeType


class VolumeKinds:
    """What a project may choose of. Thread-safe."""

    def __init__(self, rest: Rest) -> None:
        self._rest = rest

    def types(self) -> list[VolumeType]:
        """See Cloud.list_volume_types."""
        default = self._default()
        bodies = self._rest.items(Service.VOLUME, "/types", "volume_types", "list volume types")
        encrypted = self._encrypted([str(body["id"]) for body in bodies])
        return [
            VolumeType(
                id=str(body["id"]),
                name=str(body["name"]),
                default=str(body["id"]) == default,
                encrypted=encrypted.get(str(body["id"])),
                multiattach=_multiattach(body),
            )
            for body in bodies
        ]

    def zones(self) -> list[str]:
        """See Cloud.list_volume_zones."""
        answer = self._rest.get(Service.VOLUME, "/os-availability-zone", "list availability zones")
        return [
            str(zone["zoneName"])
            for zone in answer.get("availabilityZoneInfo", [])
            if zone["zoneState"]["available"]
        ]

    def _default(self) -> str:
        try:
            answer = self._rest.get(
                Service.VOLUME, "/types/default", "look for the default volume type"
            )
        except (NotFoundError, ForbiddenError, PreconditionError):
            return ""
        return str(answer.get("volume_type", {}).get("id", ""))

    def _encrypted(self, type_ids: list[str]) -> dict[str, bool]:
        """As far as the cloud tells; who may not ask about one may not about any."""
        found: dict[str, bool] = {}
        for type_id in type_ids:
            path = f"/types/{segment(type_id)}/encryption"
            try:
                answer = self._rest.get(Service.VOLUME, path, "ask whether a type encrypts")
            except BlockferryError:
                break
            found[type_id] = bool(answer.get("encryption_id"))
        return found


def _multiattach(body: Body) -> bool | None:
    specs = body.get("extra_specs")
    if not specs or not isinstance(specs, dict):
        return None
    return str(specs.get("multiattach", "")).lower() == "<is> true"
