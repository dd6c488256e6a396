"""Volumes: make the destination's.

Sources of what is not obvious (api-ref block-storage v3):
* A type that does not exist is 404, a zone that does not is 400; the words differ by
  release, so the lists are looked at to tell.
* `bootable` and image metadata cannot be given at creation, only by the actions
  `os-set_bootable` and `os-set_image_metadata`.
"""

import logging
from collections.abc import Mapping
from typing import Final

from blockferry.errors import (
    BlockferryError,
    ForbiddenError,
    NotFoundError,
    PreconditionError,
)
from blockferry.limits import GIB
from blockferry_controller.clouds.image_metadata import portable
from blockferry_controller.clouds.openstack.pace import Pace
from blockferry_controller.clouds.openstack.rest import Body, Rest, Service, segment
from blockferry_controller.clouds.openstack.volumes import FLAGS, Volumes, read_volume
from blockferry_controller.clouds.port import (
    MIGRATION_KEY,
    RESOURCE_KEY,
    Tag,
    Volume,
    VolumeRequest,
)

_log = logging.getLogger(__name__)
_SETTLED: Final = frozenset({"available", "in-use", "reserved", "attaching", "detaching"})


class VolumeMaking:
    """Makes volumes in one project. Thread-safe."""

    def __init__(self, rest: Rest, volumes: Volumes) -> None:
        self._rest = rest
        self._volumes = volumes
        self._pace = Pace()

    def ensure(self, tag: Tag, request: VolumeRequest) -> Volume:
        """See Cloud.ensure_volume. One that is attached already is returned as it is."""
        made: list[str] = []

        def create() -> Volume:
            volume = self._create(tag, request)
            made.append(volume.id)
            return volume

        found = self._rest.find_or_create(lambda: self._own(tag), create, confirm=False)
        volume = self._settled(tag, found, ours_to_delete=found.id in made)
        if volume.size_bytes < request.size_bytes:
            raise PreconditionError(
                "VOLUME_SIZE",
                f"Volume {volume.id} in {self._rest.cloud} was made for this migration with "
                f"{volume.size_bytes} bytes; {request.size_bytes} are wanted now. "
                "Extend it, or delete it.",
                volume=volume.id,
            )
        described = self._describe_image(volume, request)
        return self._volumes.need(volume.id) if described else volume

    def _own(self, tag: Tag) -> Volume | None:
        return next(
            (volume for volume, its in self._volumes.tagged(tag.migration_id) if its == tag),
            None,
        )

    def _create(self, tag: Tag, request: VolumeRequest) -> Volume:
        metadata = {key: value for key, value in request.metadata.items() if key not in FLAGS}
        body: Body = {
            # Null, as a source without has them: an empty text would be something else.
            "name": request.name or None,
            "description": request.description or None,
            "size": -(-request.size_bytes // GIB),
            "metadata": {
                **metadata,
                MIGRATION_KEY: tag.migration_id,
                RESOURCE_KEY: tag.resource,
            },
        }
        if request.volume_type:
            body["volume_type"] = request.volume_type
        if request.availability_zone:
            body["availability_zone"] = request.availability_zone
        try:
            answer = self._rest.post(
                Service.VOLUME, "/volumes", {"volume": body}, f"create volume {request.name}"
            )
        except (NotFoundError, PreconditionError) as error:
            self._explain(request, error)
            raise
        return read_volume(answer["volume"])

    def _explain(self, request: VolumeRequest, error: BlockferryError) -> None:
        """Raise what a refused creation is about, by looking: messages differ by release."""
        types = self._rest.items(Service.VOLUME, "/types", "volume_types", "list volume types")
        names = {str(one["name"]) for one in types}
        if request.volume_type and request.volume_type not in names | {one["id"] for one in types}:
            raise NotFoundError(
                "VOLUME_TYPE_NOT_FOUND",
                f"{self._rest.cloud} has no volume type {request.volume_type}. There are: "
                f"{', '.join(sorted(names)) or 'none'}. Choose one with --to-type.",
                volume_type=request.volume_type,
            ) from error
        if not request.availability_zone:
            return
        zones = self._rest.get(
            Service.VOLUME, "/os-availability-zone", "list availability zones"
        ).get("availabilityZoneInfo", [])
        known = {zone["zoneName"] for zone in zones if zone["zoneState"]["available"]}
        if request.availability_zone not in known:
            raise NotFoundError(
                "AVAILABILITY_ZONE_NOT_FOUND",
                f"{self._rest.cloud} has no availability zone {request.availability_zone} for "
                f"volumes. There are: {', '.join(sorted(known)) or 'none'}. "
                "Choose one with --to-az.",
                availability_zone=request.availability_zone,
            ) from error

    def _settled(self, tag: Tag, volume: Volume, *, ours_to_delete: bool) -> Volume:
        """The volume once it is made.

        One in error is deleted if this very call made it: an older one may hold bytes.
        """
        waiting = self._rest.patience
        observe = waiting.showing(
            volume,
            lambda: self._own(tag),
            lambda: self._volumes.look(volume.id),
            lambda: self._volumes.not_found(volume.id),
        )
        with self._volumes.watch(volume.id) as watch:
            settled = waiting.until(
                observe,
                _is_settled,
                f"volume {volume.id} in {self._rest.cloud} to be available",
                quiet=watch.quiet,
                seen=volume,
                pace=self._pace,
            )
        if not settled.status.startswith("error"):
            return settled
        error = self._volumes.in_error(settled)
        if ours_to_delete:
            self._volumes.delete(volume.id)
        raise error

    def _describe_image(self, volume: Volume, request: VolumeRequest) -> bool:
        """Whether there was anything to set."""
        path = f"/volumes/{segment(volume.id)}/action"
        what = f"make volume {volume.id} bootable"
        boots = request.bootable and not volume.bootable
        if boots:
            self._rest.post(
                Service.VOLUME, path, {"os-set_bootable": {"bootable": True}}, what, repeatable=True
            )
        wanted = portable(request.image_metadata)
        missing = {k: v for k, v in wanted.items() if volume.image_metadata.get(k) != v}
        if missing:
            self._set_image_metadata(path, missing)
        return boots or bool(missing)

    def _set_image_metadata(self, path: str, metadata: Mapping[str, str]) -> None:
        """All at once; when that is refused one by one, and those refused are left out."""
        if self._set_image_properties(path, metadata) is None:
            return
        for key, value in metadata.items():
            error = self._set_image_properties(path, {key: value})
            if error is not None:
                _log.warning("image property %s is left out: %s", key, error)

    def _set_image_properties(
        self, path: str, metadata: Mapping[str, str]
    ) -> BlockferryError | None:
        """Returns why they were refused, or None."""
        body: Body = {"os-set_image_metadata": {"metadata": dict(metadata)}}
        what = f"set image metadata {', '.join(sorted(metadata))}"
        try:
            self._rest.post(Service.VOLUME, path, body, what, repeatable=True)
        except (PreconditionError, ForbiddenError) as error:
            return error
        return None


def _is_settled(volume: Volume) -> bool:
    return volume.status in _SETTLED or volume.status.startswith("error")
