import itertools
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from blockferry.limits import CHUNK_BYTES, KIB, ZERO_RUN_MAX_BYTES
from blockferry_agent.layout import Piece, pieces
from blockferry_agent.memory_device import MemoryDevice
from blockferry_agent.ports import Extent
from tests.layouts import make_memory


class Told(MemoryDevice):
    """Tells given extents, of a size that need not exist."""

    def __init__(self, extents: list[Extent]) -> None:
        super().__init__(0)
        self._told = extents

    def extents(self, start_bytes: int, end_bytes: int) -> Iterator[Extent]:
        for extent in self._told:
            start, end = max(extent.start_bytes, start_bytes), min(extent.end_bytes, end_bytes)
            if start < end:
                yield Extent(start, end, extent.hole)


def letters(found: list[Piece]) -> str:
    return "".join(
        ("-" if piece.hole else "D") * -(-piece.length_bytes // CHUNK_BYTES) for piece in found
    )


@pytest.mark.parametrize("layout", ["", "D", "-", "D-D", "--DD--", "-D-D-", "DDD-"])
@pytest.mark.parametrize("tail", [CHUNK_BYTES, 1, 5000])
def test_pieces_are_what_is_there(layout: str, tail: int) -> None:
    device = make_memory(layout, tail_bytes=tail)
    found = [*pieces(device, 0, device.size_bytes)]
    if tail == CHUNK_BYTES:
        assert letters(found) == layout
    assert sum(piece.length_bytes for piece in found) == device.size_bytes
    for piece in found:
        assert piece.hole or piece.length_bytes <= CHUNK_BYTES


def test_a_chunk_with_a_little_data_is_read() -> None:
    size = 5 * CHUNK_BYTES
    dot = [
        Extent(0, 2 * CHUNK_BYTES + 512, hole=True),
        Extent(2 * CHUNK_BYTES + 512, 2 * CHUNK_BYTES + 1024, hole=False),
        Extent(2 * CHUNK_BYTES + 1024, size, hole=True),
    ]
    assert letters([*pieces(Told(dot), 0, size)]) == "--D--"


def test_a_walk_may_start_inside() -> None:
    device = make_memory("D-D-D")
    found = [*pieces(device, CHUNK_BYTES, device.size_bytes)]
    assert found[0] == Piece(CHUNK_BYTES, CHUNK_BYTES, hole=True)
    assert letters(found) == "-D-D"


def test_a_sparse_petabyte_is_walked_piece_by_piece() -> None:
    size = 1 << 50
    walk = pieces(Told([Extent(0, size, hole=True)]), 0, size)
    first = [*itertools.islice(walk, 3)]
    assert [piece.length_bytes for piece in first] == [ZERO_RUN_MAX_BYTES] * 3


@given(
    st.lists(st.tuples(st.integers(1, 3 * CHUNK_BYTES // KIB), st.booleans()), max_size=12),
    st.integers(0, KIB - 1),
)
def test_pieces_cover_everything_once(runs: list[tuple[int, bool]], odd: int) -> None:
    extents: list[Extent] = []
    at = 0
    for length, hole in runs:
        extents.append(Extent(at, at + length * KIB + odd, hole))
        at += length * KIB + odd
    found = [*pieces(Told(extents), 0, at)]
    assert [piece.offset_bytes for piece in found] == [
        0,
        *itertools.accumulate(piece.length_bytes for piece in found),
    ][: len(found)]
    assert sum(piece.length_bytes for piece in found) == at
    for piece in found:
        assert piece.offset_bytes % CHUNK_BYTES == 0
        data = [
            extent
            for extent in extents
            if not extent.hole
            and extent.start_bytes < piece.end_bytes
            and extent.end_bytes > piece.offset_bytes
        ]
        assert piece.hole == (not data)
