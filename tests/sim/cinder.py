"""Cinder v3: volumes with their asynchronous states, types, quotas.

Sources of what is not obvious: Cinder's block storage API reference v3 and its
`cinder/api` package: 413 with the exception's class name for quotas, 400 "Invalid
volume: …" for a wrong state, `readonly` shown in `metadata`.
"""

from __future__ import annotations

import ast
import uuid
from typing import TYPE_CHECKING

from tests.sim.cinder_attachments import CinderAttachments
from tests.sim.cinder_catalogue import CinderCatalogue
from tests.sim.http import ApiError, Json, Request, Response
from tests.sim.service import Microversions, Service, page_of
from tests.sim.volume import DELETABLE, Volume, VolumeStates, now
from tests.sim.volume_actions import VolumeActions

if TYPE_CHECKING:
    from tests.sim.cloud import EmbeddedCloud


class Cinder(Service):
    """The volumes of one cloud."""

    name = "cinder"
    port = 8776
    microversions = Microversions("volume", (3, 0), (3, 70))

    def __init__(
        self, cloud: EmbeddedCloud, *, volume_types: tuple[str, ...], zones: tuple[str, ...]
    ) -> None:
        super().__init__(cloud)
        self.volumes: dict[str, Volume] = {}
        self.types = {name: str(uuid.uuid5(uuid.NAMESPACE_OID, name)) for name in volume_types}
        self.encrypted_types: set[str] = set()
        self.multiattach_types: set[str] = set()
        """Names; a test may add to both."""
        self.zones = zones
        self.states = VolumeStates(cloud, self.volumes)
        actions, catalogue = VolumeActions(self), CinderCatalogue(self)
        attachments = CinderAttachments(self)
        self.open_routes.add("GET", "/", self._all_versions)
        self.open_routes.add("GET", "/v3", self._versions)
        for method, path, handler in (
            ("GET", "/volumes", self._list),
            ("POST", "/volumes", self._create),
            ("GET", "/volumes/detail", self._list_detail),
            ("GET", "/volumes/summary", self._summary),
            ("GET", "/volumes/{volume_id}", self._show),
            ("PUT", "/volumes/{volume_id}", self._update),
            ("DELETE", "/volumes/{volume_id}", self._delete),
            ("POST", "/volumes/{volume_id}/action", actions.act),
            ("GET", "/volumes/{volume_id}/metadata", self._metadata),
            ("POST", "/volumes/{volume_id}/metadata", self._merge_metadata),
            ("PUT", "/volumes/{volume_id}/metadata", self._replace_metadata),
            ("GET", "/volumes/{volume_id}/metadata/{key}", self._metadata_item),
            ("PUT", "/volumes/{volume_id}/metadata/{key}", self._set_metadata_item),
            ("DELETE", "/volumes/{volume_id}/metadata/{key}", self._delete_metadata_item),
            ("GET", "/types", catalogue.list_types),
            ("POST", "/types", catalogue.create_type),
            ("GET", "/types/{type_id}", catalogue.show_type),
            ("DELETE", "/types/{type_id}", catalogue.delete_type),
            ("GET", "/types/{type_id}/encryption", catalogue.show_encryption),
            ("GET", "/os-availability-zone", catalogue.list_zones),
            ("GET", "/limits", catalogue.limits),
            ("GET", "/os-quota-sets/{target}", catalogue.quota_set),
            ("GET", "/attachments", attachments.list),
            ("GET", "/attachments/detail", attachments.list),
            ("DELETE", "/attachments/{attachment_id}", attachments.delete),
            ("GET", "/snapshots", lambda request, project: {"snapshots": []}),
            ("GET", "/snapshots/detail", lambda request, project: {"snapshots": []}),
            ("GET", "/backups", lambda request, project: {"backups": []}),
            ("GET", "/backups/detail", lambda request, project: {"backups": []}),
            ("GET", "/extensions", lambda request, project: {"extensions": []}),
        ):
            self.routes.add(method, "/v3/{project}" + path, handler)

    # --- what the other parts of the cloud use ---

    def find(self, volume_id: str) -> Volume:
        """The volume of this id, else 404."""
        volume = self.volumes.get(volume_id)
        if volume is None:
            raise ApiError(404, f"Volume {volume_id} could not be found.")
        return volume

    def create(
        self,
        *,
        size_gib: int,
        name: str = "",
        description: str | None = None,
        volume_type: str = "",
        zone: str = "",
        metadata: dict[str, str] | None = None,
        image: Json | None = None,
        at_once: bool = False,
    ) -> Volume:
        """Begin to create a volume, within the quota; `at_once`: it is available on return.

        Args:
            image: In Glance, what the volume is to hold; not `at_once`, which is empty.
        """
        kind = self._type_name(volume_type)
        self._check_quota(size_gib, kind)
        volume = Volume(
            id=str(uuid.uuid4()),
            name=name,
            description=description,
            size_gib=size_gib,
            volume_type=kind,
            encrypted=kind in self.encrypted_types,
            multiattach=kind in self.multiattach_types,
            zone=self._zone(zone),
            metadata=dict(metadata or {}),
        )
        if image:
            self.states.create_from_image(volume, image)
        else:
            self.states.create(volume, at_once=at_once)
        return volume

    # --- discovery ---

    def _document(self) -> Json:
        return {
            "id": "v3.0",
            "status": "CURRENT",
            "version": self.microversions.text(self.microversions.maximum),
            "min_version": self.microversions.text(self.microversions.minimum),
            "updated": "2018-07-17T00:00:00Z",
            "links": [
                {"rel": "describedby", "type": "text/html", "href": "https://docs.openstack.org/"},
                {"rel": "self", "href": f"{self.url}/v3/"},
            ],
            "media-types": [
                {"base": "application/json", "type": "application/vnd.openstack.volume+json"}
            ],
        }

    def _all_versions(self, request: Request) -> Response:
        return Response(300, {"versions": [self._document()]})

    def _versions(self, request: Request) -> Json:
        return {"versions": [self._document()]}

    # --- volumes ---

    def _create(self, request: Request, project: str) -> Response:
        asked = request.section("volume")
        source = asked.get("snapshot_id") or asked.get("source_volid")
        if source:
            raise ApiError(400, f"Invalid input received: unknown source {source} in this cloud")
        size_gib = _size(asked.get("size"))
        image = self._image(str(asked.get("imageRef") or ""), size_gib)
        volume = self.create(
            size_gib=size_gib,
            name=_text(asked, "name") or "",
            description=_text(asked, "description"),
            volume_type=asked.get("volume_type") or "",
            zone=asked.get("availability_zone") or "",
            metadata=_metadata(asked.get("metadata") or {}),
            image=image,
        )
        return Response(202, {"volume": self._view(volume, request)})

    def _image(self, image_id: str, size_gib: int) -> Json | None:
        """The image that a volume of the size is to be made of."""
        if not image_id:
            return None
        image = self.cloud.glance.images.get(image_id)
        if image is None:
            message = "Invalid image identifier or unable to access requested image."
            raise ApiError(400, message)
        if size_gib < image["min_disk"]:
            raise ApiError(
                400,
                f"Invalid input received: Volume size {size_gib}GB cannot be smaller than the "
                f"image minDisk size {image['min_disk']}GB.",
            )
        return image

    def _check_quota(self, size_gib: int, kind: str) -> None:
        quotas, volumes = self.cloud.quotas, self.volumes.values()
        used = sum(volume.size_gib for volume in volumes)
        typed = sum(volume.size_gib for volume in volumes if volume.volume_type == kind)
        if -1 < quotas.get(f"gigabytes_{kind}", -1) < typed + size_gib:
            raise ApiError(
                413,
                "VolumeSizeExceedsAvailableQuota: Requested volume or snapshot exceeds allowed "
                f"gigabytes_{kind} quota. Requested {size_gib}G, quota is "
                f"{quotas[f'gigabytes_{kind}']}G and {typed}G has been consumed.",
            )
        if -1 < quotas["gigabytes"] < used + size_gib:
            raise ApiError(
                413,
                "VolumeSizeExceedsAvailableQuota: Requested volume or snapshot exceeds allowed "
                f"gigabytes quota. Requested {size_gib}G, quota is {quotas['gigabytes']}G and "
                f"{used}G has been consumed.",
            )
        if -1 < quotas["volumes"] < len(volumes) + 1:
            raise ApiError(
                413,
                "VolumeLimitExceeded: Maximum number of volumes allowed "
                f"({quotas['volumes']}) exceeded for quota 'volumes'.",
            )

    def _type_name(self, asked: str) -> str:
        if not asked:
            return next(iter(self.types))
        for name, type_id in self.types.items():
            if asked in {name, type_id}:
                return name
        raise ApiError(404, f"Volume type with name {asked} could not be found.")

    def _zone(self, asked: str) -> str:
        if asked and asked not in self.zones:
            raise ApiError(400, f"Availability zone '{asked}' is invalid.")
        return asked or self.zones[0]

    def _view(self, volume: Volume, request: Request) -> Json:
        view = volume.view(self.cloud.project_id, request.version, admin=request.token.admin)
        view["user_id"] = request.token.user.id
        view["links"] = self._links(volume)
        if request.version >= (3, 63):
            view["volume_type_id"] = self.types.get(volume.volume_type)
        return view

    def _links(self, volume: Volume) -> list[Json]:
        path = f"{self.cloud.project_id}/volumes/{volume.id}"
        return [
            {"rel": "self", "href": f"{self.url}/v3/{path}"},
            {"rel": "bookmark", "href": f"{self.url}/{path}"},
        ]

    def _selected(self, request: Request) -> list[Volume]:
        params = request.params
        newest = sorted(self.volumes.values(), key=lambda v: (v.created_at, v.id), reverse=True)
        if params.get("sort_dir") == "asc" or params.get("sort", "").endswith(":asc"):
            newest.reverse()
        return [volume for volume in newest if _matches(volume, params)]

    def _list(self, request: Request, project: str) -> Json:
        short = [
            {"id": v.id, "name": v.name, "links": self._links(v)} for v in self._selected(request)
        ]
        return self._page(short, request)

    def _list_detail(self, request: Request, project: str) -> Json:
        return self._page([self._view(v, request) for v in self._selected(request)], request)

    def _page(self, found: list[Json], request: Request) -> Json:
        page, marker = page_of(found, request)
        answer: Json = {"volumes": page}
        if marker:
            answer["volumes_links"] = [{"rel": "next", "href": request.url_of_page(marker=marker)}]
        if request.version >= (3, 45) and request.params.get("with_count", "").lower() == "true":
            answer["count"] = len(found)
        return answer

    def _summary(self, request: Request, project: str) -> Json:
        total = sum(volume.size_gib for volume in self.volumes.values())
        return {"volume-summary": {"total_size": total, "total_count": len(self.volumes)}}

    def _show(self, request: Request, project: str, volume_id: str) -> Json:
        return {"volume": self._view(self.find(volume_id), request)}

    def _update(self, request: Request, project: str, volume_id: str) -> Json:
        volume = self.find(volume_id)
        asked = request.section("volume")
        if "name" in asked:
            volume.name = _text(asked, "name") or ""
        if "description" in asked:
            volume.description = _text(asked, "description")
        if "metadata" in asked:
            volume.metadata = _metadata(asked["metadata"])
        volume.updated_at = now()
        return {"volume": self._view(volume, request)}

    def _delete(self, request: Request, project: str, volume_id: str) -> Response:
        volume = self.find(volume_id)
        if volume.status not in DELETABLE or volume.attachments:
            raise ApiError(
                400,
                "Invalid volume: Volume status must be available or error or error_restoring or "
                "error_extending or error_managing and must not be migrating, attached, belong to "
                "a group, have snapshots, awaiting a transfer, or be disassociated from snapshots "
                "after volume transfer.",
            )
        self.states.delete(volume)
        return Response(202)

    # --- metadata ---

    def _metadata(self, request: Request, project: str, volume_id: str) -> Json:
        return {"metadata": self.find(volume_id).metadata}

    def _merge_metadata(self, request: Request, project: str, volume_id: str) -> Json:
        volume = self.find(volume_id)
        volume.metadata.update(_metadata(request.section("metadata")))
        return {"metadata": volume.metadata}

    def _replace_metadata(self, request: Request, project: str, volume_id: str) -> Json:
        volume = self.find(volume_id)
        volume.metadata = _metadata(request.section("metadata"))
        return {"metadata": volume.metadata}

    def _metadata_item(self, request: Request, project: str, volume_id: str, key: str) -> Json:
        return {"meta": {key: self._metadata_value(volume_id, key)}}

    def _set_metadata_item(self, request: Request, project: str, volume_id: str, key: str) -> Json:
        self.find(volume_id).metadata.update(_metadata(request.section("meta")))
        return {"meta": request.section("meta")}

    def _delete_metadata_item(
        self, request: Request, project: str, volume_id: str, key: str
    ) -> Response:
        self._metadata_value(volume_id, key)
        del self.find(volume_id).metadata[key]
        return Response(200)

    def _metadata_value(self, volume_id: str, key: str) -> str:
        metadata = self.find(volume_id).metadata
        if key not in metadata:
            raise ApiError(404, f"Volume {volume_id} has no metadata with key {key}.")
        return metadata[key]


def _size(asked: object) -> int:
    if isinstance(asked, str) and asked.isdigit():
        asked = int(asked)
    if isinstance(asked, bool) or not isinstance(asked, int) or asked < 1:
        raise ApiError(
            400,
            f"Invalid input received: Invalid input for field/attribute size. Value: {asked}. "
            f"{asked} is not valid under any of the given schemas",
        )
    return asked


def _text(asked: Json, key: str) -> str | None:
    value = asked.get(key)
    if value is not None and len(str(value)) > 255:
        raise ApiError(400, f"Invalid input for field/attribute {key}. '{value}' is too long")
    return None if value is None else str(value)


def _metadata(asked: object) -> dict[str, str]:
    if not isinstance(asked, dict):
        raise ApiError(400, "Invalid input for field/attribute metadata. It is not an object")
    for key, value in asked.items():
        if not isinstance(value, str) or not 0 < len(key) <= 255 or len(value) > 255:
            raise ApiError(
                400,
                f"Invalid input for field/attribute {key}. Value: {value!r} is not a string "
                "of at most 255 characters",
            )
    return dict(asked)


def _matches(volume: Volume, params: dict[str, str]) -> bool:
    if params.get("name", volume.name) != volume.name:
        return False
    if params.get("name~", "") not in volume.name:
        return False
    if params.get("status", volume.status) != volume.status:
        return False
    if params.get("availability_zone", volume.zone) != volume.zone:
        return False
    bootable = str(volume.bootable).lower()
    if params.get("bootable", bootable).lower() != bootable:
        return False
    return _metadata_matches(volume, params.get("metadata", ""))


def _metadata_matches(volume: Volume, text: str) -> bool:
    """Cinder reads the filter with `ast.literal_eval`; one that is no dict matches nothing."""
    if not text:
        return True
    try:
        wanted = ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return False
    return isinstance(wanted, dict) and all(
        volume.metadata.get(key) == value for key, value in wanted.items()
    )
