"""Step `volume`: the destination volume."""

from msgspec.structs import replace

from blockferry.errors import NotFoundError, PreconditionError
from blockferry_controller.clouds.port import ResourceKind, Volume, VolumeRequest
from blockferry_controller.events import Undone
from blockferry_controller.migration.context import Context, need
from blockferry_controller.migration.preflight.kinds import refuse_downgrade
from blockferry_controller.migration.preflight.volumes import too_small
from blockferry_controller.spec import Kind


class MakeVolume:
    """Make the volume that receives the bytes, like the source's where it can be."""

    name = "volume"

    def do(self, context: Context) -> str:
        """Sets the destination's volume."""
        source, side = need(context.source.volume), context.destination
        request = _request(context, source)
        tag = side.tag(context.migration_id, "volume")
        try:
            volume = side.cloud.ensure_volume(tag, request)
        except NotFoundError as error:
            if error.reason != "VOLUME_TYPE_NOT_FOUND" or context.spec.to_type:
                raise
            context.note(
                f"{side.cloud.name} has no volume type {request.volume_type!r}: its default "
                "is taken; choose one with --to-type",
                level="warning",
            )
            volume = side.cloud.ensure_volume(tag, replace(request, volume_type=""))
        if volume.size_bytes < source.size_bytes:
            raise too_small(source, volume.size_bytes)
        refuse_downgrade(context, volume)
        if context.spec.kind is Kind.MIGRATE and volume.id == source.id:
            raise PreconditionError("SAME_VOLUME", f"volume {volume.id} is source and destination")
        side.volume = volume
        context.remember(
            destination_volume_id=volume.id,
            destination_volume_name=volume.name,
            destination_volume_type=volume.volume_type,
        )
        return f"{volume.id} ({volume.volume_type or 'no type'})"

    def undo(self, context: Context, *, resumable: bool) -> None:
        """Deletes the volume, unless it holds bytes that a resumed run builds on."""
        cloud = context.destination.cloud
        for resource in cloud.find_resources(context.migration_id, {ResourceKind.VOLUME}):
            if not resumable:
                cloud.delete_volume(resource.id)
            what = f"volume {resource.id} in {cloud.name}"
            context.tell(Undone(context.migration_id, what, kept=resumable))


def _request(context: Context, source: Volume) -> VolumeRequest:
    spec, side = context.spec, context.destination
    kind = spec.to_type or spec.types.get(source.volume_type) or source.volume_type
    zone = spec.to_availability_zone or spec.zones.get(source.availability_zone, "")
    return VolumeRequest(
        name=spec.destination.volume or source.name,
        description=source.description,
        size_bytes=spec.to_size_bytes or source.size_bytes,
        # Where preflight was told not to look, as it is named.
        volume_type=kind if side.volume_type is None else side.volume_type.name,
        availability_zone=zone if side.availability_zone is None else side.availability_zone,
        bootable=source.bootable,
        metadata=source.metadata if spec.to_metadata is None else spec.to_metadata,
        image_metadata=source.image_metadata,
    )
