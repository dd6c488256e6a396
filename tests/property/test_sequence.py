import contextlib
from itertools import accumulate

from hypothesis import given
from hypothesis import strategies as st

from blockferry.errors import IntegrityError
from blockferry_agent.sequence import ReorderWindow

LENGTHS = st.lists(st.integers(1, 9), min_size=1, max_size=30)


@st.composite
def shuffled(draw: st.DrawFn) -> tuple[int, list[tuple[int, int]]]:
    """(start, frames that cover [start, end) once, in any order)."""
    lengths, start = draw(LENGTHS), draw(st.integers(0, 50))
    offsets = accumulate(lengths[:-1], initial=start)
    return start, draw(st.permutations(list(zip(offsets, lengths, strict=True))))


@given(shuffled(), st.booleans())
def test_any_order_comes_out_ascending(
    case: tuple[int, list[tuple[int, int]]], zeros: bool
) -> None:
    start, frames = case
    end = start + sum(length for _, length in frames)
    window: ReorderWindow[tuple[int, int]] = ReorderWindow(start, end, 0 if zeros else end)
    out: list[tuple[int, int]] = []
    for offset, length in frames:
        payload = 0 if zeros else None
        out += window.push(offset, length, (offset, length), payload_bytes=payload)
        assert window.next_bytes == start + sum(done for _, done in out)
        assert window.pending_items + len(out) <= len(frames)
    assert out == sorted(frames)
    assert window.complete
    assert (window.pending_bytes, window.pending_items) == (0, 0)


@given(
    st.lists(st.tuples(st.integers(-3, 45), st.integers(-1, 12)), max_size=60), st.integers(0, 30)
)
def test_whatever_is_pushed_nothing_comes_out_twice_or_with_a_gap(
    pushes: list[tuple[int, int]], room: int
) -> None:
    window: ReorderWindow[tuple[int, int]] = ReorderWindow(5, 40, room)
    place = 5
    for offset, length in pushes:
        with contextlib.suppress(IntegrityError):
            for start, size in window.push(offset, length, (offset, length)):
                assert start == place
                place += size
        assert window.next_bytes == place <= 40
        assert 0 <= window.pending_bytes <= room
