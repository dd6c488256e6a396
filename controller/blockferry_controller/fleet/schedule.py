"""When each volume is likely to move, and what the quotas must bear meanwhile. Pure.

A simulation: admission decides as it will in the batch, time jumps from event to event.
Windows that close stop what runs (it goes on in the next), or let it run out.
"""

import heapq
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta

from msgspec import Struct, field
from msgspec.structs import replace

from blockferry_controller.fleet import calendar
from blockferry_controller.fleet.admission import Ask, Left, Reason, Route, Why, admit, needs_of
from blockferry_controller.fleet.spec import AtEnd, Limits, Windows


class Job(Struct, frozen=True):
    """A volume and how long it takes, once it runs."""

    ask: Ask
    wave: int
    seconds: float


class Slot(Struct, frozen=True):
    """When one volume begins and is through, pauses between windows included."""

    start: datetime
    end: datetime


class Peak(Struct, frozen=True):
    """The most that is in use of one quota at once, against what it leaves now."""

    cloud: str
    resource: str
    needed: int
    left: int | None
    at: datetime


class Schedule(Struct):
    """What comes of it.

    Attributes:
        slots: By key.
        never: Why volumes cannot begin under these limits, by key.
        peaks: By cloud and resource.
        waves: Beginning and end by number; those without a volume are not there.
    """

    slots: dict[str, Slot] = field(default_factory=dict)
    never: dict[str, Reason] = field(default_factory=dict)
    peaks: dict[tuple[str, str], Peak] = field(default_factory=dict)
    waves: dict[int, Slot] = field(default_factory=dict)


class _Simulation(Struct):
    limits: Limits
    windows: Windows
    route: Route
    left: dict[str, dict[str, int | None]]
    schedule: Schedule
    now: datetime
    used: dict[str, dict[str, int]] = field(default_factory=dict)
    pairs: int = 0
    """Of instances, which those that run share."""

    def wave(self, number: int, jobs: Sequence[Job]) -> None:
        """Run one wave to its end."""
        waiting = {job.ask.key: job for job in jobs}
        running: list[tuple[datetime, str]] = []
        asks: dict[str, Ask] = {}
        begun: datetime | None = None
        while waiting or running:
            opens = calendar.next_start(self.windows, self.now) if waiting else self.now
            if opens is None and not running:
                self._never(waiting, Reason(Why.WINDOW, "no window is long enough to begin in"))
                break
            if waiting and opens is not None and opens <= self.now:
                self._start(waiting, running, asks)
                begun = begun or (self.now if running else None)
            if not running and waiting and (opens is None or opens <= self.now):
                self._never(waiting, None)
                break
            self._forward(running, asks, opens if waiting else None)
        ends = [self.schedule.slots[job.ask.key].end for job in jobs
                if job.ask.key in self.schedule.slots]  # fmt: skip
        if begun is not None and ends:
            self.schedule.waves[number] = Slot(begun, max(ends))

    def _start(
        self,
        waiting: dict[str, Job],
        running: list[tuple[datetime, str]],
        asks: dict[str, Ask],
    ) -> None:
        found = admit(
            (job.ask for job in waiting.values()), list(asks.values()), self.limits, self.route,
            self.left, free_lanes=max(0, self.pairs * self.limits.lanes - len(asks)),
        )  # fmt: skip
        for ask in found.start:
            job = waiting.pop(ask.key)
            end = self._end(job.seconds)
            self.schedule.slots[ask.key] = Slot(self.now, end)
            asks[ask.key] = ask
            heapq.heappush(running, (end, ask.key))
            boots = len(asks) > self.pairs * self.limits.lanes or not self.limits.pairs
            self.pairs += boots
            self._use(needs_of(ask if boots else replace(ask, passing={})), 1)

    def _end(self, seconds: float) -> datetime:
        """When something that begins now is through."""
        moment = self.now
        while True:
            span = calendar.span_at(self.windows, moment)
            end = moment + timedelta(seconds=seconds)
            runs_out = self.windows.at_end is AtEnd.RUN_OUT
            if span is None or span.end is None or end <= span.end or runs_out:
                return end
            seconds -= (span.end - moment).total_seconds()
            following = calendar.span_at(self.windows, span.end)
            if following is None:
                return end
            moment = following.start

    def _forward(
        self,
        running: list[tuple[datetime, str]],
        asks: dict[str, Ask],
        opens: datetime | None,
    ) -> None:
        """To the next end or opening."""
        coming = [running[0][0]] if running else []
        if opens is not None and opens > self.now:
            coming.append(opens)
        self.now = min(coming)
        while running and running[0][0] <= self.now:
            _, key = heapq.heappop(running)
            ended = asks.pop(key)
            # What one pair holds, another does, too: it need not be the one that was booted for it.
            if len(asks) <= (self.pairs - 1) * self.limits.lanes or not self.limits.pairs:
                self.pairs -= 1
                self._use(ended.passing, -1)

    def _use(self, needs: Mapping[str, Mapping[str, int]], sign: int) -> None:
        for cloud, amounts in needs.items():
            used, left = self.used.setdefault(cloud, {}), self.left.setdefault(cloud, {})
            for name, amount in amounts.items():
                used[name] = used.get(name, 0) + sign * amount
                there = left.get(name)
                if there is not None:
                    left[name] = there - sign * amount
                self._peak(cloud, name, used[name])

    def _peak(self, cloud: str, name: str, used: int) -> None:
        before = self.schedule.peaks.get((cloud, name))
        if before is None or used > before.needed:
            now_left = self.left[cloud].get(name)
            at_first = None if now_left is None else now_left + used
            self.schedule.peaks[cloud, name] = Peak(cloud, name, used, at_first, self.now)

    def _never(self, waiting: dict[str, Job], reason: Reason | None) -> None:
        """Nothing runs that could make room: what waits now, waits for ever."""
        if reason is None:
            asks = [job.ask for job in waiting.values()]
            reasons = admit(asks, (), self.limits, self.route, self.left).waiting
        else:
            reasons = dict.fromkeys(waiting, reason)
        self.schedule.never.update(reasons)
        waiting.clear()


def schedule(
    jobs: Sequence[Job],
    *,
    limits: Limits,
    windows: Windows,
    route: Route,
    left: Left,
    now: datetime,
) -> Schedule:
    """Lay `jobs` on the calendar, wave after wave, gates open.

    Args:
        jobs: What is to be moved, in any order.
        limits: Of the fleet.
        windows: Of the fleet.
        route: Of the fleet.
        left: What the quotas leave now.
        now: When it would be started.
    """
    found = Schedule()
    own = {cloud: dict(names) for cloud, names in left.items()}
    simulation = _Simulation(limits, windows, route, own, found, now)
    waves: dict[int, list[Job]] = {}
    for job in jobs:
        waves.setdefault(job.wave, []).append(job)
    for number in sorted(waves):
        simulation.wave(number, waves[number])
    return found
