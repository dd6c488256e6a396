"""Windows: when a fleet may move."""

from datetime import datetime, time, timedelta, timezone
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from blockferry_controller.fleet.calendar import is_open, may_start, next_start, span_at
from blockferry_controller.fleet.spec import Opening, Windows

BERLIN = ZoneInfo("Europe/Berlin")
EVERY_DAY = tuple(range(7))
NIGHTS = Windows("Europe/Berlin", (Opening((4, 5), time(22), time(6)),), last_start_seconds=1800)


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=BERLIN)


@pytest.mark.parametrize(
    ("moment", "opened", "starts"),
    [
        pytest.param("2026-11-20 21:59", False, False, id="friday before"),
        pytest.param("2026-11-20 22:00", True, True, id="at its beginning"),
        pytest.param("2026-11-21 05:29", True, True, id="saturday early"),
        pytest.param("2026-11-21 05:31", True, False, id="too near the end"),
        pytest.param("2026-11-21 06:00", False, False, id="at its end"),
        pytest.param("2026-11-22 03:00", True, True, id="saturday's, on sunday"),
        pytest.param("2026-11-22 23:00", False, False, id="sunday is not a day of it"),
    ],
)
def test_a_night(moment: str, opened: bool, starts: bool) -> None:
    assert (is_open(NIGHTS, at(moment)), may_start(NIGHTS, at(moment))) == (opened, starts)


def test_without_openings_it_is_always_open() -> None:
    assert may_start(Windows(), at("2026-11-20 12:00"))
    assert span_at(Windows(), at("2026-11-20 12:00")).end is None  # type: ignore[union-attr]


def test_the_next_start() -> None:
    assert next_start(NIGHTS, at("2026-11-22 12:00")) == at("2026-11-27 22:00")
    assert next_start(NIGHTS, at("2026-11-21 05:40")) == at("2026-11-21 22:00")
    assert next_start(NIGHTS, at("2026-11-21 01:00")) == at("2026-11-21 01:00")


def test_a_window_shorter_than_its_last_start_never_begins() -> None:
    short = Windows("UTC", (Opening(EVERY_DAY, time(1), time(2)),), last_start_seconds=7200)
    assert next_start(short, at("2026-11-22 12:00")) is None


@pytest.mark.parametrize(
    ("day", "hours"), [("2026-03-28", 7), ("2026-10-24", 9), ("2026-06-06", 8)]
)
def test_nights_that_change_the_clock(day: str, hours: int) -> None:
    span = span_at(NIGHTS, at(f"{day} 23:00"))
    assert span is not None
    assert span.end is not None
    assert span.end - span.start == timedelta(hours=hours)


def test_openings_that_touch_are_one() -> None:
    windows = Windows(
        "UTC",
        (Opening((0,), time(20), time(0)), Opening((1,), time(0), time(4))),
    )
    span = span_at(windows, datetime(2026, 11, 23, 21, tzinfo=timezone.utc))
    assert span is not None
    assert span.end == datetime(2026, 11, 24, 4, tzinfo=timezone.utc)


def test_openings_without_a_gap_never_close() -> None:
    always = Windows("UTC", (Opening(EVERY_DAY, time(0), time(0)),))
    span = span_at(always, at("2026-11-22 12:00"))
    assert span is not None
    assert span.end is None


def test_nor_do_such_of_two_a_day_whenever_one_looks() -> None:
    minute = time(0, 1)
    openings = Opening(EVERY_DAY, time(0), minute), Opening(EVERY_DAY, minute, time(0))
    for zone in ("UTC", "Europe/Berlin"):
        for moment in ("2026-01-01 00:01", "2026-03-28 23:59", "2026-10-24 23:59"):
            span = span_at(Windows(zone, openings), at(moment))
            assert span is not None
            assert span.end is None


def test_an_hour_a_week_is_a_gap_also_when_the_clocks_are_put_back() -> None:
    days = tuple(range(6))
    windows = Windows(
        "Europe/Berlin",
        (Opening(days, time(0), time(0)), Opening((6,), time(0), time(23))),
    )
    span = span_at(windows, at("2026-10-19 12:00"))
    assert span is not None
    assert span.end == datetime(2026, 10, 25, 22, tzinfo=timezone.utc)


MOMENTS = st.integers(0, 365 * 24 * 60).map(
    lambda minutes: datetime(2026, 1, 1, tzinfo=timezone.utc) + timedelta(minutes=minutes)
)
OPENINGS = st.builds(
    Opening,
    st.sets(st.integers(0, 6), min_size=1).map(lambda days: tuple(sorted(days))),
    st.times().map(lambda t: t.replace(second=0, microsecond=0)),
    st.times().map(lambda t: t.replace(second=0, microsecond=0)),
)
WINDOWS = st.builds(
    Windows,
    st.sampled_from(["UTC", "Europe/Berlin", "Australia/Lord_Howe", "America/St_Johns"]),
    st.lists(OPENINGS, min_size=1, max_size=3).map(tuple),
    last_start_seconds=st.integers(0, 7200),
)


@given(WINDOWS, MOMENTS)
def test_the_span_found_is_the_first_that_has_not_ended(windows: Windows, now: datetime) -> None:
    span = span_at(windows, now)
    assert span is not None
    assert span.end is None or now < span.end
    if now < span.start:
        middle = now + (span.start - now) / 2
        assert not is_open(windows, middle)
    if span.end is not None:
        assert not is_open(windows, span.end)
        assert is_open(windows, span.start)


@given(WINDOWS, MOMENTS)
def test_what_may_start_next_may_start_then(windows: Windows, now: datetime) -> None:
    moment = next_start(windows, now)
    assert moment is None or (moment >= now and may_start(windows, moment))
