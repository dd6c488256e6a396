"""Which partition table a device begins with, and how its partitions are aligned. Pure.

Sources: UEFI specification 2.10, 5.2 and 5.3. An MBR ends with 55 AA in byte 510 and has
four entries of 16 bytes from byte 446 on: type in byte 4, first sector in bytes 8 to 11. A
GPT has its header in logical block 1, so where it is tells the block size that it was made
for: "EFI PART", from byte 72 on the block of the entries, their number and size; an entry's
type is 16 bytes, zero when it is free, its first block is in bytes 32 to 39.
"""

import struct
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from blockferry.v1 import agent_pb2

ALIGNMENT_MAX_BYTES: Final = 1 << 20
"""What partitioning tools align to; more says nothing."""
_SECTOR_BYTES: Final = 512
_BLOCK_SIZES: Final = (512, 4096)
_ENTRIES_MAX: Final = 1024
_FREE: Final = bytes(16)


@dataclass(frozen=True, slots=True)
class Table:
    """What was found; `alignment_bytes` as in ProbeResult."""

    kind: "agent_pb2.PartitionTable.ValueType"
    alignment_bytes: int = 0


def read_table(head: bytes) -> Table:
    """The table that a device with this beginning has.

    Args:
        head: From byte 0 on, at least 4 KiB where the device has them; 64 KiB hold all
            entries of a usual GPT. Any bytes are legal.
    """
    for block_bytes in _BLOCK_SIZES:
        if head[block_bytes : block_bytes + 8] == b"EFI PART":
            starts = _gpt_starts(head, block_bytes)
            return Table(agent_pb2.PARTITION_TABLE_GPT, _alignment(starts))
    if head[510:512] == b"\x55\xaa":
        starts = _mbr_starts(head)
        # A boot sector of a filesystem ends like an MBR, and has no entries that make sense.
        if starts:
            return Table(agent_pb2.PARTITION_TABLE_MBR, _alignment(starts))
    return Table(agent_pb2.PARTITION_TABLE_NONE)


def _gpt_starts(head: bytes, block_bytes: int) -> list[int]:
    fields = head[block_bytes + 72 : block_bytes + 88]
    if len(fields) < 16:
        return []
    first, count, size = struct.unpack("<QII", fields)
    if size < 128:
        return []
    positions = (first * block_bytes + index * size for index in range(min(count, _ENTRIES_MAX)))
    entries = (head[at : at + 40] for at in positions)
    return [
        struct.unpack_from("<Q", entry, 32)[0] * block_bytes
        for entry in entries
        if len(entry) == 40 and entry[:16] != _FREE
    ]


def _mbr_starts(head: bytes) -> list[int]:
    starts = []
    for at in range(446, 510, 16):
        status, kind = head[at], head[at + 4]
        if status & 0x7F:
            return []
        if kind:
            starts.append(struct.unpack_from("<I", head, at + 8)[0] * _SECTOR_BYTES)
    return starts


def _alignment(starts: Iterable[int]) -> int:
    bits = 0
    for start in starts:
        bits |= start
    if not bits:
        return 0
    return min(bits & -bits, ALIGNMENT_MAX_BYTES)
