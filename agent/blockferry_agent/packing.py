"""What a source's worker makes of a piece of the device: a frame to be sent."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final

from blockferry.limits import MIB
from blockferry_agent.chunk import digest, is_zero
from blockferry_agent.codec import Encoder, Encoding, LevelTuner
from blockferry_agent.frames import pack_frame
from blockferry_agent.layout import Piece
from blockferry_agent.ports import BlockDevice
from blockferry_agent.stageclock import StageClock, Stopwatch
from blockferry_agent.survey import page_aligned_buffer

_FOUND_RUN_BYTES: Final = 16 * MIB
"""Zero chunks found by reading are merged up to this: few frames, and the sink
works on one while the next is read. Holes go as they are."""


@dataclass(frozen=True, slots=True)
class Parcel:
    """A piece that a worker is done with.

    Attributes:
        piece: Where it lies.
        digest: Of the chunk (32 bytes); empty for zeros.
        message: The frame, serialized; empty for zeros, which may still be merged.
        payload_bytes: After compression.
    """

    piece: Piece
    digest: bytes
    message: bytes
    payload_bytes: int

    @property
    def is_data(self) -> bool:
        """Whether it is a chunk with content, not zeros."""
        return bool(self.message)


def zeros(piece: Piece) -> Parcel:
    """The parcel of a piece that is all zeros."""
    return Parcel(piece, b"", b"", 0)


def zero_frame(piece: Piece) -> bytes:
    """The frame of a piece that is all zeros, serialized."""
    return pack_frame(piece.offset_bytes, piece.length_bytes, Encoding.ZERO, b"", b"")


class Packer:
    """Reads, looks for zeros, digests and encodes. One a thread."""

    def __init__(self, device: BlockDevice, tuner: LevelTuner, clock: StageClock) -> None:
        self._device = device
        self._clock = clock
        self._encoder = Encoder(tuner)
        self._buffer = page_aligned_buffer()

    def pack(self, piece: Piece) -> Parcel:
        """Do all of it for one piece. Raises DeviceError."""
        if piece.hole:
            return zeros(piece)
        length = piece.length_bytes
        watch = Stopwatch()
        view = self._buffer[:length]
        self._device.read_into(piece.offset_bytes, view)
        self._clock["read"].add(length, watch.lap())
        if is_zero(view):
            self._clock["digest"].add(length, watch.lap())
            return zeros(piece)
        chunk_digest = digest(view)
        self._clock["digest"].add(length, watch.lap())
        encoding, payload = self._encoder.encode(view)
        message = pack_frame(piece.offset_bytes, length, encoding, payload, chunk_digest)
        self._clock["encode"].add(length, watch.lap())
        return Parcel(piece, chunk_digest, message, len(payload))


def merge_zeros(parcels: Iterable[Parcel]) -> Iterator[Parcel]:
    """Join neighbouring zero chunks that were found by reading; order stays."""
    run: Piece | None = None
    for parcel in parcels:
        piece = parcel.piece
        if parcel.is_data or piece.hole:
            if run is not None:
                yield zeros(run)
                run = None
            yield parcel
            continue
        start = piece if run is None else run
        run = Piece(start.offset_bytes, piece.end_bytes - start.offset_bytes, hole=False)
        if run.length_bytes >= _FOUND_RUN_BYTES:
            yield zeros(run)
            run = None
    if run is not None:
        yield zeros(run)
