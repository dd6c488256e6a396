import pytest

from blockferry.errors import IntegrityError
from blockferry_agent.sequence import HELD_ITEMS_MAX, ReorderWindow


def window(start: int = 0, end: int = 100, room: int = 30) -> ReorderWindow[str]:
    return ReorderWindow(start, end, room)


def test_frames_in_order_pass_through() -> None:
    frames = window(end=20)
    seen = []
    for offset, item in ((0, "a"), (10, "b")):
        assert frames.push(offset, 10, item) == [item]
        seen.append((frames.next_bytes, frames.complete))
    assert seen == [(10, False), (20, True)]


def test_early_frames_wait_for_the_one_before() -> None:
    frames = window()
    assert frames.push(20, 10, "c") == []
    assert frames.push(10, 10, "b") == []
    assert frames.pending_bytes == 20
    assert frames.pending_items == 2
    assert frames.push(0, 10, "a") == ["a", "b", "c"]
    assert frames.pending_bytes == 0
    assert frames.pending_items == 0
    assert frames.next_bytes == 30


def test_a_gap_that_stays_keeps_what_is_behind_it() -> None:
    frames = window()
    frames.push(10, 10, "b")
    frames.push(30, 10, "d")
    assert frames.push(0, 10, "a") == ["a", "b"]
    assert frames.pending_bytes == 10
    assert frames.push(20, 10, "c") == ["c", "d"]


def test_it_starts_where_the_transfer_resumes() -> None:
    frames = window(start=50)
    assert frames.push(50, 50, "rest") == ["rest"]
    assert frames.complete


def test_an_empty_transfer_is_complete() -> None:
    assert window(end=0).complete


@pytest.mark.parametrize(
    ("offset", "length", "reason"),
    [
        (0, 10, "FRAME_OVERLAP"),
        (5, 10, "FRAME_OVERLAP"),
        (9, 1, "FRAME_OVERLAP"),
        (20, 10, "FRAME_OVERLAP"),
        (15, 6, "FRAME_OVERLAP"),
        (29, 2, "FRAME_OVERLAP"),
        (10, 30, "FRAME_OVERLAP"),
        (22, 2, "FRAME_OVERLAP"),
        (95, 6, "FRAME_OUT_OF_RANGE"),
        (100, 1, "FRAME_OUT_OF_RANGE"),
        (10, 0, "FRAME_OUT_OF_RANGE"),
        (10, -1, "FRAME_OUT_OF_RANGE"),
        (-1, 1, "FRAME_OUT_OF_RANGE"),
        (40, 21, "FRAME_BEYOND_WINDOW"),
    ],
)
def test_violations_are_refused_and_change_nothing(offset: int, length: int, reason: str) -> None:
    frames = window()
    frames.push(0, 10, "a")
    frames.push(20, 10, "c")
    with pytest.raises(IntegrityError) as caught:
        frames.push(offset, length, "bad")
    assert caught.value.reason == reason
    assert frames.pending_bytes == 10
    assert frames.push(10, 10, "b") == ["b", "c"]


def test_the_window_may_be_full() -> None:
    frames = window()
    frames.push(10, 30, "b")
    assert frames.pending_bytes == 30


def test_the_next_frame_is_never_beyond_the_window() -> None:
    frames = window(room=1)
    assert frames.push(0, 50, "a") == ["a"]


def test_zero_frames_take_no_room_in_the_window() -> None:
    frames = window(end=1000)
    assert frames.push(10, 900, "zeros", payload_bytes=0) == []
    assert frames.pending_bytes == 0
    assert frames.push(910, 30, "data") == []
    assert frames.push(0, 10, "a") == ["a", "zeros", "data"]


def test_the_number_of_held_frames_is_bounded() -> None:
    frames = window(end=10 * HELD_ITEMS_MAX)
    for index in range(1, HELD_ITEMS_MAX + 1):
        frames.push(index, 1, "zero", payload_bytes=0)
    with pytest.raises(IntegrityError) as caught:
        frames.push(HELD_ITEMS_MAX + 1, 1, "zero", payload_bytes=0)
    assert caught.value.reason == "FRAME_BEYOND_WINDOW"
    assert len(frames.push(0, 1, "first")) == HELD_ITEMS_MAX + 1
