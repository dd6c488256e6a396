"""Volumes laid on a calendar."""

from datetime import datetime, time, timedelta, timezone
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from blockferry_controller.fleet import calendar
from blockferry_controller.fleet.admission import Ask, Route, Why
from blockferry_controller.fleet.schedule import Job, Schedule, schedule
from blockferry_controller.fleet.spec import AtEnd, Limits, Opening, Windows

NOON = datetime(2026, 11, 20, 12, tzinfo=timezone.utc)
NIGHTS = Windows("UTC", (Opening(tuple(range(7)), time(22), time(2)),))
PASSING = {"east": {"instances": 1}, "west": {"instances": 1}}


def job(key: str, hours: float = 1, *, wave: int = 0, size: int = 10) -> Job:
    lasting = {"west": {"gigabytes": size}}
    return Job(Ask(key, size, passing=PASSING, lasting=lasting), wave, hours * 3600)


def laid(*jobs: Job, limit: int = 1, windows: Windows = Windows(), left: Any = None) -> Schedule:  # noqa: B008 - frozen
    return schedule(
        jobs,
        limits=Limits(limit),
        windows=windows,
        route=Route("east", "west"),
        left=left or {},
        now=NOON,
    )


def hours(found: Schedule, key: str) -> tuple[float, float]:
    slot = found.slots[key]
    return ((slot.start - NOON) / timedelta(hours=1), (slot.end - NOON) / timedelta(hours=1))


def test_one_after_another_largest_first() -> None:
    found = laid(job("a", size=1), job("b", 2, size=2))
    assert (hours(found, "b"), hours(found, "a")) == ((0, 2), (2, 3))


def test_side_by_side() -> None:
    found = laid(job("a", 3), job("b"), job("c", 1), limit=2)
    assert sorted(hours(found, key)[1] for key in "abc") == [1, 2, 3]


def test_a_wave_waits_for_the_one_before() -> None:
    found = laid(job("a", 3), job("b", wave=1), job("c", wave=1), limit=5)
    assert hours(found, "b") == (3, 4)
    assert (found.waves[1].start - NOON, found.waves[1].end - NOON) == (
        timedelta(hours=3),
        timedelta(hours=4),
    )


def test_a_window_pauses_what_does_not_fit() -> None:
    found = laid(job("a", 6), windows=NIGHTS)
    # 22:00 to 02:00, and the next night until midnight.
    assert hours(found, "a") == (10, 36)


def test_or_lets_it_run_out() -> None:
    windows = Windows("UTC", NIGHTS.openings, AtEnd.RUN_OUT)
    assert hours(laid(job("a", 6), windows=windows), "a") == (10, 16)


def test_what_no_quota_will_ever_hold_is_told() -> None:
    found = laid(job("a", size=200), job("b", size=10), left={"west": {"gigabytes": 100}})
    assert found.never["a"].why is Why.QUOTA
    assert hours(found, "b") == (0, 1)


def test_quota_lets_fewer_at_a_time_than_the_limit() -> None:
    found = laid(job("a"), job("b"), limit=5, left={"east": {"instances": 1}})
    assert sorted([hours(found, "a")[0], hours(found, "b")[0]]) == [0, 1]
    peak = found.peaks["east", "instances"]
    assert (peak.needed, peak.left) == (1, 1)


def test_the_peak_of_what_lasts_is_at_the_end() -> None:
    found = laid(job("a"), job("b", size=5), left={"west": {"gigabytes": 100}})
    peak = found.peaks["west", "gigabytes"]
    assert (peak.needed, peak.left, peak.at) == (15, 100, NOON + timedelta(hours=1))


def test_ten_thousand_are_laid_in_seconds() -> None:
    found = laid(*(job(f"v{n}", 0.1, size=n % 97 + 1) for n in range(10_000)), limit=200)
    assert len(found.slots) == 10_000


@given(
    st.lists(st.tuples(st.floats(0.1, 30), st.integers(0, 2), st.integers(1, 9)), max_size=12),
    st.integers(1, 4),
    st.sampled_from([Windows(), NIGHTS, Windows("UTC", NIGHTS.openings, AtEnd.RUN_OUT)]),
)
def test_every_volume_is_laid_and_no_limit_overrun(
    jobs: list[tuple[float, int, int]], limit: int, windows: Windows
) -> None:
    made = [job(str(at), h, wave=w, size=s) for at, (h, w, s) in enumerate(jobs)]
    found = laid(*made, limit=limit, windows=windows)
    assert found.slots.keys() == {one.ask.key for one in made}
    for slot in found.slots.values():
        running = [o for o in found.slots.values() if o.start <= slot.start < o.end]
        assert len(running) <= limit
        assert calendar.may_start(windows, slot.start)
    for one in made:
        before = [found.slots[o.ask.key].end for o in made if o.wave < one.wave]
        assert not before or max(before) <= found.slots[one.ask.key].start


def test_pairs_are_counted_once_for_all_their_lanes() -> None:
    jobs = [job(str(at), 1 + at % 2) for at in range(8)]
    found = schedule(
        jobs, limits=Limits(9, pairs=2, lanes=3), windows=Windows(), now=NOON,
        route=Route("east", "west"), left={"east": {"instances": 5}, "west": {}},
    )  # fmt: skip
    assert not found.never
    assert found.peaks["east", "instances"].needed == 2
    assert found.peaks["west", "gigabytes"].needed == 80
    one = schedule(
        jobs, limits=Limits(9, pairs=2, lanes=3), windows=Windows(), now=NOON,
        route=Route("east", "west"), left={"east": {"instances": 1}, "west": {}},
    )  # fmt: skip
    assert not one.never
    assert one.peaks["east", "instances"].needed == 1
    assert max(one.slots[key].end for key in one.slots) > NOON + timedelta(hours=3)
