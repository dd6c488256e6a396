"""Cinder without its volumes: types, which an operator makes; zones, limits, quotas."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING

from tests.sim.http import ApiError, Json, Request, Response
from tests.sim.service import admin_only

if TYPE_CHECKING:
    from tests.sim.cinder import Cinder


class CinderCatalogue:
    """What there is besides volumes."""

    def __init__(self, cinder: Cinder) -> None:
        self._cinder = cinder

    def _type_view(self, name: str) -> Json:
        return {
            "id": self._cinder.types[name],
            "name": name,
            "description": None,
            "is_public": True,
            "os-volume-type-access:is_public": True,
            "qos_specs_id": None,
            "extra_specs": {"multiattach": "<is> True"}
            if name in self._cinder.multiattach_types
            else {},
        }

    def list_types(self, request: Request, project: str) -> Json:
        """GET /types."""
        return {"volume_types": [self._type_view(name) for name in self._cinder.types]}

    def show_type(self, request: Request, project: str, type_id: str) -> Json:
        """GET /types/{type_id}."""
        if type_id == "default":
            return {"volume_type": self._type_view(next(iter(self._cinder.types)))}
        return {"volume_type": self._type_view(self._type_name(type_id))}

    def _type_name(self, type_id: str) -> str:
        for name, known_id in self._cinder.types.items():
            if type_id == known_id:
                return name
        raise ApiError(404, f"Volume type {type_id} could not be found.")

    def create_type(self, request: Request, project: str) -> Json:
        """POST /types; of the extra specs only `multiattach` means anything here."""
        admin_only(request, "volume_extension:type_create")
        asked = request.section("volume_type")
        name = str(asked.get("name") or "").strip()
        if not 1 <= len(name) <= 255:
            raise ApiError(400, f"Invalid input for field/attribute name. Value: {name!r}.")
        if name in self._cinder.types:
            raise ApiError(409, f"Volume Type {name} already exists.")
        self._cinder.types[name] = str(uuid.uuid4())
        if (asked.get("extra_specs") or {}).get("multiattach") == "<is> True":
            self._cinder.multiattach_types.add(name)
        return {"volume_type": self._type_view(name)}

    def delete_type(self, request: Request, project: str, type_id: str) -> Response:
        """DELETE /types/{type_id}."""
        admin_only(request, "volume_extension:type_delete")
        name = self._type_name(type_id)
        if any(volume.volume_type == name for volume in self._cinder.volumes.values()):
            raise ApiError(400, "Target volume type is still in use.")
        del self._cinder.types[name]
        self._cinder.multiattach_types.discard(name)
        self._cinder.encrypted_types.discard(name)
        return Response(202)

    def show_encryption(self, request: Request, project: str, type_id: str) -> Json:
        """GET /types/{type_id}/encryption; for administrators, by default."""
        admin_only(request, "volume_extension:volume_type_encryption:get")
        encrypted = {self._cinder.types[name] for name in self._cinder.encrypted_types}
        return {"encryption_id": type_id, "provider": "luks"} if type_id in encrypted else {}

    def list_zones(self, request: Request, project: str) -> Json:
        """GET /os-availability-zone."""
        zones = [
            {"zoneName": zone, "zoneState": {"available": True}} for zone in self._cinder.zones
        ]
        return {"availabilityZoneInfo": zones}

    def _used(self) -> dict[str, int]:
        sizes = [volume.size_gib for volume in self._cinder.volumes.values()]
        return {"volumes": len(sizes), "gigabytes": sum(sizes)}

    def limits(self, request: Request, project: str) -> Json:
        """GET /limits."""
        used, quotas = self._used(), self._cinder.cloud.quotas
        absolute = {
            "maxTotalVolumes": quotas["volumes"],
            "maxTotalVolumeGigabytes": quotas["gigabytes"],
            "totalVolumesUsed": used["volumes"],
            "totalGigabytesUsed": used["gigabytes"],
            "maxTotalSnapshots": 10,
            "totalSnapshotsUsed": 0,
            "maxTotalBackups": 10,
            "totalBackupsUsed": 0,
            "maxTotalBackupGigabytes": 1000,
            "totalBackupGigabytesUsed": 0,
        }
        return {"limits": {"rate": [], "absolute": absolute}}

    def quota_set(self, request: Request, project: str, target: str) -> Json:
        """GET /os-quota-sets/{project}."""
        used, quotas = self._used(), self._cinder.cloud.quotas
        limits = {
            "volumes": quotas["volumes"],
            "gigabytes": quotas["gigabytes"],
            "per_volume_gigabytes": -1,
            "snapshots": 10,
            "backups": 10,
            "backup_gigabytes": 1000,
            "groups": 10,
        }
        volumes = self._cinder.volumes.values()
        for name in self._cinder.types:
            limits.update({f"volumes_{name}": -1, f"snapshots_{name}": -1})
            limits[f"gigabytes_{name}"] = quotas.get(f"gigabytes_{name}", -1)
            used[f"gigabytes_{name}"] = sum(v.size_gib for v in volumes if v.volume_type == name)
        if request.params.get("usage", "").lower() != "true":
            return {"quota_set": {"id": target, **limits}}
        usage = {
            key: {"limit": limit, "in_use": used.get(key, 0), "reserved": 0}
            for key, limit in limits.items()
        }
        return {"quota_set": {"id": target, **usage}}
