"""Puts chunks and zero runs onto a device, in the order it is told.

Rules:
* Nothing is assumed to be zero: `zeroing.decide` says what is skipped.
* Lengths that end inside a block of the device (a source whose size is no
  multiple of it) are completed with what the device holds there.
"""

from typing import Final

from blockferry.limits import CHUNK_BYTES, MIB
from blockferry_agent.chunk import is_zero
from blockferry_agent.layout import Piece
from blockferry_agent.ports import BlockDevice, UnsupportedZeroMethod
from blockferry_agent.survey import page_aligned_buffer
from blockferry_agent.zeroing import ActionKind, ZeroingState, decide

_WRITEBACK_BYTES: Final = 8 * MIB
"""Writeback starts this often: early, so that a commit point finds little left."""


class DeviceWriter:
    """The one writer of a device. Not thread-safe."""

    def __init__(self, device: BlockDevice) -> None:
        self._device = device
        self._zeroing = ZeroingState.of(device.zero_methods)
        self._scratch = page_aligned_buffer()
        self._dirty_from: int | None = None

    def write(self, offset_bytes: int, data: memoryview | bytes) -> None:
        """Write one chunk; durable only after the device's flush."""
        self._device.write_at(offset_bytes, self._completed(offset_bytes, data))
        self._start_writeback(offset_bytes, offset_bytes + len(data))

    def zero(self, piece: Piece) -> None:
        """Make sure that a piece (of one chunk unless a hole) reads as zeros."""
        reads_zero: bool | None = None
        whole = piece.length_bytes == CHUNK_BYTES
        while True:
            action = decide(piece.hole, reads_zero, self._zeroing, whole_chunk=whole)
            if action.kind is ActionKind.SKIP:
                return
            if action.kind is ActionKind.READ:
                reads_zero = self._reads_zero(piece)
                continue
            if self._ends_inside_block(piece.end_bytes):
                self.write(piece.offset_bytes, bytes(piece.length_bytes))
                return
            assert action.method is not None
            try:
                self._device.zero_at(piece.offset_bytes, piece.length_bytes, action.method)
            except UnsupportedZeroMethod:
                self._zeroing = self._zeroing.without(action.method)
                continue
            if not action.check:
                return
            if self._reads_zero(piece):
                self._zeroing = self._zeroing.with_proof(action.method)
                return
            self._zeroing = self._zeroing.without(action.method)

    def _reads_zero(self, piece: Piece) -> bool:
        view = self._scratch[: piece.length_bytes]
        self._device.read_into(piece.offset_bytes, view)
        return is_zero(view)

    def _ends_inside_block(self, end_bytes: int) -> bool:
        return end_bytes % self._device.block_bytes != 0 and end_bytes < self._device.size_bytes

    def _completed(self, offset_bytes: int, data: memoryview | bytes) -> memoryview | bytes:
        end = offset_bytes + len(data)
        if not self._ends_inside_block(end):
            return data
        missing = self._scratch[: -end % self._device.block_bytes]
        self._device.read_into(end, missing)
        return b"".join((data, missing))

    def _start_writeback(self, start_bytes: int, end_bytes: int) -> None:
        if self._dirty_from is None:
            self._dirty_from = start_bytes
        if end_bytes - self._dirty_from >= _WRITEBACK_BYTES:
            self._device.start_writeback(self._dirty_from, end_bytes - self._dirty_from)
            self._dirty_from = end_bytes
