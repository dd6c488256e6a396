"""The devices as the agents see them: will what is on the source mean the same there?"""

from blockferry.errors import PreconditionError
from blockferry.v1 import agent_pb2
from blockferry_controller.migration.context import Context, Side, need
from blockferry_controller.migration.preflight.check import Warned
from blockferry_controller.notation import format_bytes

_SERIAL_CHARACTERS = 20
"""virtio-blk cuts serials there (VIRTIO_BLK_ID_BYTES of linux/virtio_blk.h)."""


def block_size(context: Context) -> str:
    """Both devices have the same logical block: partition tables count in it.

    Raises:
        PreconditionError: BLOCK_SIZE_DIFFERS.
    """
    found = [_seen(side) for side in context.sides]
    sizes = [one.logical_block_bytes for one in found if one is not None]
    if len(sizes) < len(found):
        return "not told"
    source, destination = sizes
    if source != destination:
        raise PreconditionError(
            "BLOCK_SIZE_DIFFERS",
            f"the source has logical blocks of {source} bytes, the destination of {destination}: "
            "partition tables and some filesystems would not be understood there; choose a type "
            "with equal blocks with --to-type, or go on with --skip-check block-size when it "
            "holds neither",
            source_block_bytes=source,
            destination_block_bytes=destination,
        )
    return f"{source} bytes on both sides"


def tail(context: Context) -> str | Warned:
    """A destination that is larger has a tail, and a GPT wants its copy at the end."""
    source, destination = need(context.source.volume), need(context.destination.volume)
    more = destination.size_bytes - source.size_bytes
    if more <= 0:
        return "none: both have the same size"
    return Warned(
        f"the new volume is {format_bytes(more)} larger, which stays as the cloud made it; if it "
        "holds a GPT, move the backup to the new end with `sgdisk -e` on the first instance "
        "that uses it"
    )


def _seen(side: Side) -> agent_pb2.BlockDevice | None:
    """The side's device in its instance; None for files and where no serial fits."""
    volume = need(side.volume)
    if volume.path:
        return None
    for device in need(side.agent).list_block_devices():
        if device.serial and volume.id.startswith(device.serial[:_SERIAL_CHARACTERS]):
            return device
    return None
