"""What Cinder tells of a cloud without touching a volume: types, zones, limits, quotas."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.sim.http import ApiError, Json, Request

if TYPE_CHECKING:
    from tests.sim.cinder import Cinder


class CinderCatalogue:
    """The read-only part of Cinder."""

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
        for name, known_id in self._cinder.types.items():
            if type_id == known_id:
                return {"volume_type": self._type_view(name)}
        if type_id == "default":
            return {"volume_type": self._type_view(next(iter(self._cinder.types)))}
        raise ApiError(404, f"Volume type {type_id} could not be found.")

    def show_encryption(self, request: Request, project: str, type_id: str) -> Json:
        """GET /types/{type_id}/encryption; for administrators, by default."""
        if not request.token.admin:
            rule = "volume_extension:volume_type_encryption:get"
            raise ApiError(403, f"Policy doesn't allow {rule} to be performed.")
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
