"""The volume to be moved, and how large the other is to be."""

from blockferry.errors import NotFoundError, PreconditionError
from blockferry_controller.clouds.port import ResourceKind, Volume
from blockferry_controller.migration.context import Context, Side, need
from blockferry_controller.notation import format_bytes
from blockferry_controller.spec import Kind


def find_source(context: Context) -> str:
    """Sets the source's volume."""
    side = context.source
    volume = side.volume = side.cloud.find_volume(side.endpoint.volume)
    return f"{volume.id}, {format_bytes(volume.size_bytes)}, {volume.status}"


def source_is_free(context: Context) -> str:
    """Nobody uses the source volume but us.

    Raises:
        PreconditionError: VOLUME_ATTACHED, VOLUME_STATE.
    """
    side = context.source
    volume = need(side.volume)
    ours = _servers_of_ours(context, side) if volume.attachments else set()
    strangers = [tie for tie in volume.attachments if tie.server_id not in ours]
    if strangers:
        server = strangers[0].server_id or "an instance"
        raise PreconditionError(
            "VOLUME_ATTACHED",
            f"volume {volume.name or volume.id} is attached to {server}; "
            "unmount it, detach it, then try again",
            volume=volume.id,
            server=server,
        )
    if volume.status != "available" and not volume.attachments:
        raise PreconditionError(
            "VOLUME_STATE",
            f"volume {volume.name or volume.id} is {volume.status}, not available; wait for it, "
            "or have it reset when it is stuck",
            volume=volume.id,
            status=volume.status,
        )
    return "attached to our instance" if volume.attachments else "not attached"


def destination_size(context: Context) -> str:
    """What is there or will be made holds the source.

    Raises:
        PreconditionError: SAME_VOLUME, DESTINATION_TOO_SMALL.
    """
    source = need(context.source.volume)
    there = _existing_destination(context)
    if there is not None and there.id == source.id:
        raise PreconditionError(
            "SAME_VOLUME",
            f"{there.name} and {source.name} are the same device; name another destination",
            volume=source.id,
        )
    size = context.spec.to_size_bytes or source.size_bytes
    if there is not None:
        size = there.size_bytes
    if size < source.size_bytes:
        raise too_small(source, size)
    return f"{format_bytes(size)}, {'there already' if there is not None else 'to be made'}"


def too_small(source: Volume, size_bytes: int) -> PreconditionError:
    """The error for a destination that cannot hold the source."""
    return PreconditionError(
        "DESTINATION_TOO_SMALL",
        f"the destination has {format_bytes(size_bytes)}, the source {source.name or source.id} "
        f"{format_bytes(source.size_bytes)}; give it at least that size",
        size_bytes=size_bytes,
        source_size_bytes=source.size_bytes,
    )


def _existing_destination(context: Context) -> Volume | None:
    """What `copy` writes to if it exists; between clouds the volume is always new."""
    if context.spec.kind is not Kind.COPY:
        return None
    try:
        return context.destination.cloud.find_volume(context.spec.destination.volume)
    except NotFoundError:
        return None


def _servers_of_ours(context: Context, side: Side) -> set[str]:
    found = side.cloud.find_resources(context.pair_id, {ResourceKind.SERVER})
    return {resource.id for resource in found}
