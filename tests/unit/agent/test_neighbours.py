"""Agents of one instance tell each other when they were last needed."""

import math
from pathlib import Path

from blockferry_agent.neighbours import Neighbours
from tests.fakes.clock import ManualClock

EVERY = 60.0


def neighbours(directory: Path | None, clock: ManualClock, own: str = "a") -> Neighbours:
    return Neighbours(directory, own, clock, every_seconds=EVERY)


def test_who_is_alone_has_nobody_who_is_needed(tmp_path: Path) -> None:
    clock = ManualClock()
    for directory in (None, tmp_path / "run"):
        one = neighbours(directory, clock)
        one.tell(0.0)
        assert one.silent_seconds() == math.inf


def test_the_last_of_the_others_counts(tmp_path: Path) -> None:
    clock = ManualClock()
    one, *others = (neighbours(tmp_path / "run", clock, own) for own in ("a", "b", "c"))
    one.tell(0.0)
    for silent, other in zip((700.0, 300.0), others, strict=True):
        other.tell(silent)
    clock.sleep(100.0)
    assert one.silent_seconds() == 400.0
    assert [other.silent_seconds() for other in others] == [100.0, 100.0]


def test_it_is_told_anew_as_time_goes_by_and_not_more_often(tmp_path: Path) -> None:
    clock = ManualClock()
    one, other = (neighbours(tmp_path, clock, own) for own in ("a", "b"))
    other.tell(0.0)
    clock.sleep(EVERY - 1)
    other.tell(0.0)
    assert one.silent_seconds() == EVERY - 1
    clock.sleep(1)
    other.tell(0.0)
    assert one.silent_seconds() == 0.0


def test_what_nobody_can_read_says_nothing(tmp_path: Path) -> None:
    clock = ManualClock()
    (tmp_path / "b.needed").write_text("12.5 and a ha")
    (tmp_path / "c.needed").mkdir()
    (tmp_path / "d.needed.new").write_text(repr(clock.now))
    assert neighbours(tmp_path, clock).silent_seconds() == math.inf


def test_a_directory_that_cannot_be_made_ends_nobody(tmp_path: Path) -> None:
    (tmp_path / "run").write_text("a file")
    one = neighbours(tmp_path / "run", ManualClock())
    one.tell(0.0)
    assert one.silent_seconds() == math.inf
