import threading

import pytest

from blockferry.limits import CHUNK_BYTES, MIB
from blockferry_agent.pipeline import Closed
from blockferry_agent.position import START, Position
from blockferry_agent.window import IN_FLIGHT_FRAMES_MAX, SendWindow
from tests.unit.agent.test_pacing import StoppedClock


def blocks(window: SendWindow, data_bytes: int, zero_bytes: int) -> bool:
    """Whether `reserve` waits; the window is closed afterwards if it did."""
    passed = threading.Event()

    def reserve() -> None:
        try:
            window.reserve(data_bytes, zero_bytes)
            passed.set()
        except Closed:
            pass

    thread = threading.Thread(target=reserve)
    thread.start()
    thread.join(0.05)
    waited = thread.is_alive()
    window.close()
    thread.join()
    return waited or not passed.is_set()


def test_data_beyond_the_window_waits() -> None:
    window = SendWindow(2 * MIB, START, StoppedClock())
    window.reserve(MIB, 0)
    window.reserve(MIB, 0)
    assert blocks(window, MIB, 0)


def test_a_commit_makes_room() -> None:
    window = SendWindow(2 * MIB, START, StoppedClock())
    window.reserve(MIB, 0)
    window.reserve(MIB, 0)
    window.advance(MIB)
    assert not blocks(window, MIB, 0)


def test_zero_runs_cost_no_room_but_are_counted() -> None:
    window = SendWindow(MIB, START, StoppedClock())
    window.reserve(MIB, 0)
    for _ in range(IN_FLIGHT_FRAMES_MAX - 1):
        window.reserve(0, CHUNK_BYTES)
    assert blocks(window, 0, CHUNK_BYTES)


def test_a_window_smaller_than_a_chunk_lets_one_pass() -> None:
    assert not blocks(SendWindow(1, START, StoppedClock()), MIB, 0)


def test_a_pause_holds() -> None:
    window = SendWindow(8 * MIB, START, StoppedClock())
    window.set_paused(True)
    assert blocks(window, MIB, 0)


def test_only_what_is_committed_is_counted() -> None:
    window = SendWindow(8 * MIB, Position(MIB, 0, MIB), StoppedClock())
    window.reserve(MIB, 0)
    window.reserve(0, 4 * MIB)
    assert window.committed == Position(MIB, 0, MIB)
    window.advance(2 * MIB)
    assert window.committed == Position(2 * MIB, MIB, MIB)
    window.advance(5 * MIB)
    assert window.committed == Position(2 * MIB, MIB, MIB)
    assert window.heard_bytes == 5 * MIB
    window.advance(3 * MIB)
    assert window.heard_bytes == 5 * MIB
    window.advance(6 * MIB)
    assert window.committed == Position(6 * MIB, MIB, 5 * MIB)


def test_silence_counts_only_while_something_is_owed() -> None:
    clock = StoppedClock()
    window = SendWindow(8 * MIB, START, clock)
    clock.now = 100.0
    assert window.silent_seconds() == 0.0
    window.reserve(MIB, 0)
    clock.now = 130.0
    window.reserve(MIB, 0)
    assert window.silent_seconds() == pytest.approx(30.0)
    window.advance(MIB)
    assert window.silent_seconds() == 0.0
    clock.now = 140.0
    assert window.silent_seconds() == pytest.approx(10.0)
    window.advance(2 * MIB)
    assert window.silent_seconds() == 0.0
