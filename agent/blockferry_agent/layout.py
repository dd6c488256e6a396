"""A device as a walk over whole chunks: pieces to read, and holes to pass over."""

from collections.abc import Iterator
from dataclasses import dataclass

from blockferry.limits import CHUNK_BYTES, ZERO_RUN_MAX_BYTES
from blockferry_agent.ports import BlockDevice


@dataclass(frozen=True, slots=True)
class Piece:
    """One step of the walk.

    Attributes:
        offset_bytes: A multiple of CHUNK_BYTES.
        length_bytes: Of one chunk; of a hole, any number of whole chunks up to
            ZERO_RUN_MAX_BYTES. Only the last piece of a device may end off the grid.
        hole: True when the storage promises zeros, so that nothing need be read.
    """

    offset_bytes: int
    length_bytes: int
    hole: bool

    @property
    def end_bytes(self) -> int:
        """First byte after the piece."""
        return self.offset_bytes + self.length_bytes


def pieces(device: BlockDevice, start_bytes: int, end_bytes: int) -> Iterator[Piece]:
    """Cut [start, end) into pieces in ascending order, without a gap.

    A chunk is part of a hole only if all of it is. Extents are asked for as the
    walk goes on, so that a sparse terabyte costs neither time nor memory ahead.

    Args:
        device: Whose extents are asked.
        start_bytes: A multiple of CHUNK_BYTES, or `end_bytes`.
        end_bytes: Exclusive; at most the device's size.
    """
    at = start_bytes
    if at >= end_bytes:
        return
    for extent in device.extents(start_bytes, end_bytes):
        if extent.hole or extent.end_bytes <= at:
            continue
        first = extent.start_bytes // CHUNK_BYTES * CHUNK_BYTES
        if first > at:
            yield from _holes(at, first)
            at = first
        while at < min(extent.end_bytes, end_bytes):
            length = min(CHUNK_BYTES, end_bytes - at)
            yield Piece(at, length, hole=False)
            at += length
    yield from _holes(at, end_bytes)


def _holes(start_bytes: int, end_bytes: int) -> Iterator[Piece]:
    for at in range(start_bytes, end_bytes, ZERO_RUN_MAX_BYTES):
        yield Piece(at, min(ZERO_RUN_MAX_BYTES, end_bytes - at), hole=True)
