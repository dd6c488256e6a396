"""The digests of a device's chunks, read by several threads, in order."""

import mmap
from collections.abc import Iterator

from blockferry.limits import CHUNK_BYTES
from blockferry_agent.chunk import digest, is_zero, zero_digest
from blockferry_agent.layout import Piece, pieces
from blockferry_agent.pipeline import Ordered, StageGroup
from blockferry_agent.ports import BlockDevice
from blockferry_agent.stageclock import StageClock, Stopwatch

STAGES = ("read", "digest")


def page_aligned_buffer() -> memoryview:
    """A buffer of CHUNK_BYTES that O_DIRECT reads into without a copy."""
    return memoryview(mmap.mmap(-1, CHUNK_BYTES))


def zero_digests(piece: Piece) -> bytes:
    """Digests of all chunks of a piece that is zero; 32 bytes each."""
    whole, rest = divmod(piece.length_bytes, CHUNK_BYTES)
    digests = zero_digest(CHUNK_BYTES) * whole if whole else b""
    return digests + zero_digest(rest) if rest else digests


def read_digests(
    device: BlockDevice, piece: Piece, buffer: memoryview, clock: StageClock
) -> tuple[bytes, bool]:
    """Digests of a piece, read into `buffer` unless it is a hole, and whether all is zero.

    Raises:
        DeviceError: the read failed.
    """
    if piece.hole:
        return zero_digests(piece), True
    watch = Stopwatch()
    view = buffer[: piece.length_bytes]
    device.read_into(piece.offset_bytes, view)
    clock["read"].add(len(view), watch.lap())
    zero = is_zero(view)
    result = zero_digest(len(view)) if zero else digest(view)
    clock["digest"].add(len(view), watch.lap())
    return result, zero


class Survey:
    """One walk over [start, end) of a device, which must not be closed meanwhile.

    Holes are taken as the zeros that the storage promises.
    """

    def __init__(
        self,
        device: BlockDevice,
        start_bytes: int,
        end_bytes: int,
        *,
        threads: int,
        clock: StageClock,
    ) -> None:
        """Prepare to read [start, end) with `threads`; `clock` has the STAGES."""
        self._device = device
        self._threads = threads
        self._clock = clock
        self._results: Ordered[Piece, tuple[Piece, bytes, bool]] = Ordered(
            pieces(device, start_bytes, end_bytes), depth=threads * 4
        )
        self._group = StageGroup("survey")
        self._group.closes(self._results)

    def __iter__(self) -> Iterator[tuple[Piece, bytes, bool]]:
        """Pieces in ascending order, their digests, and whether all is zero. Iterate once.

        Raises:
            DeviceError: a read failed.
            Exception: what `fail` was called with.
        """
        for number in range(self._threads):
            self._group.spawn(f"read-{number}", self._read)
        try:
            yield from self._results
        finally:
            # Left early by the reader's own choice or error: no thread stays behind.
            self._results.close()
            self._group.join()

    def fail(self, error: BaseException) -> None:
        """Stop from another thread; the reader gets `error`."""
        self._group.fail(error)

    def _read(self) -> None:
        buffer = page_aligned_buffer()
        self._results.run(lambda piece: self._digests(piece, buffer))

    def _digests(self, piece: Piece, buffer: memoryview) -> tuple[Piece, bytes, bool]:
        return piece, *read_digests(self._device, piece, buffer, self._clock)
