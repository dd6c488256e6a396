"""Nova without its servers: flavors, zones, limits; quotas, which an operator sets."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.sim.http import ApiError, Json, Request
from tests.sim.service import admin_only, page_of

if TYPE_CHECKING:
    from tests.sim.nova import Nova

SETTABLE = ("instances", "cores", "ram")
"""Quotas that have an effect here."""


class NovaCatalogue:
    """What there is besides servers."""

    def __init__(self, nova: Nova) -> None:
        self._nova = nova

    def _flavor_view(self, flavor: Json, request: Request) -> Json:
        view = {
            **flavor,
            "swap": 0 if request.version >= (2, 75) else "",
            "rxtx_factor": 1.0,
            "OS-FLV-EXT-DATA:ephemeral": 0,
            "OS-FLV-DISABLED:disabled": False,
            "os-flavor-access:is_public": True,
            "links": self._nova.links("flavors", flavor["id"]),
        }
        if request.version >= (2, 55):
            view["description"] = None
        if request.version >= (2, 61):
            view["extra_specs"] = {}
        return view

    def list_flavors(self, request: Request) -> Json:
        """GET /flavors and /flavors/detail."""
        params = request.params
        found = [
            self._flavor_view(flavor, request)
            for flavor in self._nova.flavors.values()
            if flavor["ram"] >= int(params.get("minRam", 0))
            and flavor["disk"] >= int(params.get("minDisk", 0))
        ]
        page, marker = page_of(found, request)
        answer: Json = {"flavors": page}
        if marker:
            answer["flavors_links"] = [{"rel": "next", "href": request.url_of_page(marker=marker)}]
        return answer

    def show_flavor(self, request: Request, flavor_id: str) -> Json:
        """GET /flavors/{flavor_id}."""
        if flavor_id not in self._nova.flavors:
            raise ApiError(404, f"Flavor {flavor_id} could not be found.")
        return {"flavor": self._flavor_view(self._nova.flavors[flavor_id], request)}

    def extra_specs(self, request: Request, flavor_id: str) -> Json:
        """GET /flavors/{flavor_id}/os-extra_specs."""
        return {"extra_specs": {}}

    def limits(self, request: Request) -> Json:
        """GET /limits."""
        used, quotas = self._nova.used(), self._nova.cloud.quotas
        absolute = {
            "maxTotalInstances": quotas["instances"],
            "maxTotalCores": quotas["cores"],
            "maxTotalRAMSize": quotas["ram"],
            "totalInstancesUsed": used["instances"],
            "totalCoresUsed": used["cores"],
            "totalRAMUsed": used["ram"],
            "maxServerMeta": 128,
            "maxTotalKeypairs": 100,
            "maxServerGroups": 10,
            "maxServerGroupMembers": 10,
            "totalServerGroupsUsed": 0,
        }
        return {"limits": {"rate": [], "absolute": absolute}}

    def _quota_limits(self) -> dict[str, int]:
        quotas = {key: self._nova.cloud.quotas[key] for key in SETTABLE}
        return {
            **quotas,
            "metadata_items": 128,
            "key_pairs": 100,
            "server_groups": 10,
            "server_group_members": 10,
        }

    def quota_set(self, request: Request, project: str) -> Json:
        """GET /os-quota-sets/{project}."""
        return {"quota_set": {"id": project, **self._quota_limits()}}

    def set_quota(self, request: Request, project: str) -> Json:
        """PUT /os-quota-sets/{project}."""
        admin_only(request, "os_compute_api:os-quota-sets:update")
        asked = {k: v for k, v in request.section("quota_set").items() if k != "force"}
        for key, limit in asked.items():
            if key not in SETTABLE or not isinstance(limit, int) or limit < -1:
                raise ApiError(400, f"Invalid input for field/attribute {key}. Value: {limit}.")
        self._nova.cloud.quotas.update(asked)
        return {"quota_set": self._quota_limits()}

    def quota_detail(self, request: Request, project: str) -> Json:
        """GET /os-quota-sets/{project}/detail."""
        used = self._nova.used()
        detail = {
            key: {"limit": limit, "in_use": used.get(key, 0), "reserved": 0}
            for key, limit in self._quota_limits().items()
        }
        return {"quota_set": {"id": project, **detail}}

    def list_zones(self, request: Request) -> Json:
        """GET /os-availability-zone."""
        zones = [
            {"zoneName": zone, "zoneState": {"available": True}, "hosts": None}
            for zone in self._nova.zones
        ]
        return {"availabilityZoneInfo": zones}
