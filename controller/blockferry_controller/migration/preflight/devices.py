"""The devices as the agents see them: will what is on the source mean the same there?"""

from blockferry.errors import PreconditionError
from blockferry.v1 import agent_pb2
from blockferry_controller.migration.context import Context, Side, need
from blockferry_controller.migration.preflight.check import Warned
from blockferry_controller.notation import format_bytes

_PHYSICAL_BYTES = 4096
"""Physical block of disks with 512 logical ones, and object boundary of network storage."""
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


def alignment(context: Context) -> str | Warned:
    """Partitions of the source begin where blocks of 4 KiB do."""
    look = context.source.look
    bytes_ = look.partition_alignment_bytes if look is not None else 0
    if not bytes_:
        return "no partitions" if _table(context) else "not looked at"
    if bytes_ % _PHYSICAL_BYTES:
        return Warned(
            f"partitions of the source begin at multiples of {bytes_} bytes only, and will there, "
            f"too: storage with blocks of {_PHYSICAL_BYTES} bytes is slow to write them; "
            "partition anew and copy files where that matters"
        )
    return f"partitions begin at multiples of {format_bytes(bytes_)}"


def tail(context: Context) -> str | Warned:
    """A destination that is larger has a tail, and a GPT wants its copy at the end."""
    source, destination = need(context.source.volume), need(context.destination.volume)
    more = destination.size_bytes - source.size_bytes
    if more <= 0:
        return "none: both have the same size"
    table = _table(context)
    if table and table != agent_pb2.PARTITION_TABLE_GPT:
        return f"{format_bytes(more)}, and no GPT that would want its backup there"
    holds = "the source holds a GPT:" if table else "if the source holds a GPT,"
    return Warned(
        f"the new volume is {format_bytes(more)} larger, which stays as the cloud made it; "
        f"{holds} move its backup to the new end with `sgdisk -e` on the first instance that "
        "uses it"
    )


def _table(context: Context) -> int:
    """The source's partition table; 0 when nobody has looked."""
    return context.source.look.partition_table if context.source.look is not None else 0


def _seen(side: Side) -> agent_pb2.BlockDevice | None:
    """The side's device in its instance; None for files and where no serial fits."""
    volume = need(side.volume)
    if volume.path:
        return None
    for device in need(side.agent).list_block_devices():
        if device.serial and volume.id.startswith(device.serial[:_SERIAL_CHARACTERS]):
            return device
    return None
