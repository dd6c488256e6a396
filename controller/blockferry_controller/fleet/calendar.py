"""When a fleet may move: windows in a time zone, daylight saving included. Pure.

Rules:
* Openings are half-open: at `until` it is closed.
* Times are of the wall in the time zone named. A window from 22:00 to 06:00 is an hour
  shorter in the night that loses one, and an hour longer in the night that has one twice.
  A time that the clocks skip is as much later by the new time, one they show twice the first.
* Openings that touch or overlap are one.
"""

from collections.abc import Iterator
from datetime import date, datetime, timedelta, timezone
from zoneinfo import ZoneInfo

from msgspec import Struct

from blockferry_controller.fleet.spec import Opening, Windows


class Span(Struct, frozen=True):
    """A time in which volumes may move, in UTC; `end` None: it never closes."""

    start: datetime
    end: datetime | None

    def holds(self, moment: datetime) -> bool:
        """Whether `moment` is in it."""
        return self.start <= moment and (self.end is None or moment < self.end)


def span_at(windows: Windows, moment: datetime) -> Span | None:
    """The open span that holds `moment`, or else the next one.

    Args:
        windows: Those of the fleet.
        moment: With a time zone.

    Returns:
        None when no opening comes within a week: there is none at all.
    """
    if not windows.openings:
        return Span(datetime.min.replace(tzinfo=timezone.utc), None)
    zone = ZoneInfo(windows.time_zone)
    found: Span | None = None
    for span in _spans(windows, zone, moment):
        if span.end is not None and span.end <= moment:
            continue
        if found is None:
            found = span
        elif found.end is not None and span.start <= found.end:
            ends = [end for end in (found.end, span.end) if end is not None]
            found = Span(found.start, max(ends))
        else:
            break
    if found is not None and found.end is not None and _never_closes(found):
        return Span(found.start, None)
    return found


def is_open(windows: Windows, moment: datetime) -> bool:
    """Whether volumes may move at `moment`."""
    span = span_at(windows, moment)
    return span is not None and span.holds(moment)


def may_start(windows: Windows, moment: datetime) -> bool:
    """Whether something new may begin: it is open, and not for too short a time."""
    span = span_at(windows, moment)
    if span is None or not span.holds(moment):
        return False
    last = timedelta(seconds=windows.last_start_seconds)
    return span.end is None or moment + last < span.end


def next_start(windows: Windows, moment: datetime) -> datetime | None:
    """The first moment from `moment` on at which something may begin; None for never."""
    for _ in range(32):
        span = span_at(windows, moment)
        if span is None:
            return None
        moment = max(moment, span.start)
        if may_start(windows, moment) or span.end is None:
            return moment
        moment = span.end
    return None


_AHEAD_DAYS = 10
_GAPLESS = timedelta(days=8)
"""Longer than a week in which the clocks are put back: what has no gap for so long has none."""


def _spans(windows: Windows, zone: ZoneInfo, moment: datetime) -> Iterator[Span]:
    """All openings from the day before `moment` on, by their beginning."""
    today = moment.astimezone(zone).date()
    days = (today + timedelta(days=ahead) for ahead in range(-1, _AHEAD_DAYS))
    spans = [
        _span(opening, day, zone)
        for day in days
        for opening in windows.openings
        if day.weekday() in opening.days
    ]
    # A window that lies within a skipped hour is empty.
    return iter(sorted((s for s in spans if s.end and s.start < s.end), key=lambda s: s.start))


def _span(opening: Opening, day: date, zone: ZoneInfo) -> Span:
    last = day if opening.since < opening.until else day + timedelta(days=1)
    start = datetime.combine(day, opening.since, zone)
    end = datetime.combine(last, opening.until, zone)
    return Span(start.astimezone(timezone.utc), end.astimezone(timezone.utc))


def _never_closes(span: Span) -> bool:
    """Openings that follow each other without a gap."""
    assert span.end is not None
    return span.end - span.start >= _GAPLESS
