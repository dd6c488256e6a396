import pytest

from blockferry.limits import CHUNK_BYTES
from blockferry_agent.chunk import digest
from blockferry_agent.codec import Compression, Decoder, Encoding, LevelTuner
from blockferry_agent.frames import Frame, unpack
from blockferry_agent.layout import Piece, pieces
from blockferry_agent.packing import Packer, Parcel, merge_zeros, zero_frame, zeros
from blockferry_agent.stageclock import StageClock
from tests.layouts import chunk, make_memory

C = CHUNK_BYTES


def packer(layout: str) -> tuple[Packer, list[Piece]]:
    device = make_memory(layout, tail_bytes=99)
    clock = StageClock("read", "digest", "encode")
    made = Packer(device, LevelTuner(Compression("zstd", 1)), clock)
    return made, [*pieces(device, 0, device.size_bytes)]


def test_every_kind_of_piece() -> None:
    made, walk = packer("DR0-D")
    parcels = [made.pack(piece) for piece in walk]
    assert [parcel.is_data for parcel in parcels] == [True, True, False, False, True]
    for index in (0, 1, 4):
        frame = unpack(parcels[index].message)
        assert isinstance(frame, Frame)
        content = Decoder().decode(frame.encoding, frame.payload, frame.length_bytes)
        assert content == chunk("DR0-D", index, tail_bytes=99)
        assert frame.digest == parcels[index].digest == digest(content)
        assert len(frame.payload) == parcels[index].payload_bytes


def test_a_zero_frame_is_empty() -> None:
    frame = unpack(zero_frame(Piece(C, 5 * C, hole=True)))
    assert frame == Frame(C, 5 * C, Encoding.ZERO, memoryview(b""), b"")


def parcels_of(layout: str) -> list[Parcel]:
    """D: data, 0: a zero chunk that was read, -: a hole."""
    return [
        Parcel(Piece(index * C, C, hole=letter == "-"), b"", b"m" if letter == "D" else b"", 0)
        for index, letter in enumerate(layout)
    ]


@pytest.mark.parametrize(
    ("layout", "lengths"),
    [
        ("", []),
        ("DD", [1, 1]),
        ("000", [3]),
        ("0D00", [1, 1, 2]),
        ("00-00", [2, 1, 2]),
        ("0" * 40, [16, 16, 8]),
    ],
)
def test_zero_chunks_are_merged_up_to_a_limit(layout: str, lengths: list[int]) -> None:
    merged = [*merge_zeros(parcels_of(layout))]
    assert [parcel.piece.length_bytes // C for parcel in merged] == lengths
    at = 0
    for parcel in merged:
        assert parcel.piece.offset_bytes == at
        at += parcel.piece.length_bytes
    assert not any(zeros(parcel.piece).is_data for parcel in merged)
