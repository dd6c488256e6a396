"""What a batch does now: who begins, who is stopped, why the others wait. Pure.

In this order, the first that holds back a volume is its reason: pause, window, wave, gate,
breaker, a time it must wait for, limits and quotas (admission).
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from enum import Enum
from zoneinfo import ZoneInfo

from msgspec import Struct
from msgspec.structs import replace

from blockferry_controller.engine.fleet_records import FleetWants, ItemRecord, ItemState
from blockferry_controller.fleet import calendar
from blockferry_controller.fleet.admission import Ask, Left, Reason, Route, Why, admit
from blockferry_controller.fleet.spec import AtEnd, Fleet, Wave

_BEGUN_PRIORITY = 10_000
"""What has begun goes first: the new volume is there, and may be half full."""


class Over(Enum):
    """Why a batch ends."""

    DONE = "done"
    """Every volume is in a final state."""
    STOPPED = "stopped"
    """What is left waits for a person: a breaker, or a gate that too many failures closed."""


class View(Struct, frozen=True):
    """All that a decision is made of.

    Attributes:
        left: What quotas left when they were last asked.
        uncounted: Positions of what runs and was not counted by then.
        counted_lanes: How many of these need no instance of their own: theirs was counted.
        since: When this batch began: what failed earlier, somebody has seen.
        free_lanes: Of pairs of instances, which whoever begins takes instead of booting one.
        shut_lanes: Of pairs in which others are at work, and which nobody may take any more.
    """

    fleet: Fleet
    items: Sequence[ItemRecord]
    wants: FleetWants
    now: datetime
    since: datetime
    left: Left
    uncounted: frozenset[int] = frozenset()
    counted_lanes: int = 0
    free_lanes: int = 0
    shut_lanes: int = 0


class Decision(Struct, frozen=True):
    """What to do.

    Attributes:
        start: Positions, in order.
        reasons: Why each of the others waits, by position.
        stop: Why everything that runs is stopped without loss; None: it goes on.
        over: Set when nothing is left to do, and nothing runs.
    """

    start: tuple[int, ...]
    reasons: Mapping[int, Reason]
    stop: Reason | None = None
    over: Over | None = None


def decide(view: View) -> Decision:
    """The decision for this moment."""
    waiting = [item for item in view.items if item.state is ItemState.WAITING]
    running = [item for item in view.items if item.state is ItemState.RUNNING]
    if not waiting and not running:
        return Decision((), {}, over=Over.DONE)
    held = _paused(view) or _window(view)
    if held is not None:
        stops = held.why is Why.PAUSED or not _may_run_out(view)
        return Decision((), _all(waiting, held), stop=held if stops else None)
    wave = _current(view)
    later = [item for item in waiting if item.wave != wave.name]
    reasons = _all(later, Reason(Why.WAVE, f"wave {wave.name} comes before"))
    own = [item for item in waiting if item.wave == wave.name]
    shut = _gate(view, wave) or _breaker(view, wave)
    if shut is not None:
        over = Over.STOPPED if not running and _needs_a_person(wave, shut) else None
        return Decision((), {**reasons, **_all(own, shut)}, over=over)
    start, more = _admitted(view, own, running)
    return Decision(start, {**reasons, **more})


def _admitted(
    view: View, waiting: Sequence[ItemRecord], running: Sequence[ItemRecord]
) -> tuple[tuple[int, ...], dict[int, Reason]]:
    later = [item for item in waiting if item.not_before and item.not_before > view.now]
    reasons = {item.position: _later(item) for item in later}
    at = {item.volume_id: item.position for item in waiting}
    asks = [ask_of(item) for item in waiting if item.position not in reasons]
    found = admit(
        asks,
        [ask_of(item) for item in running],
        view.fleet.limits,
        Route(view.fleet.source, view.fleet.destination),
        view.left,
        uncounted=[whole_of(item) for item in running if item.position in view.uncounted],
        counted_lanes=view.counted_lanes,
        free_lanes=view.free_lanes,
        shut_lanes=view.shut_lanes,
    )
    reasons |= {at[key]: reason for key, reason in found.waiting.items()}
    return tuple(at[ask.key] for ask in found.start), reasons


def ask_of(item: ItemRecord) -> Ask:
    """What an item asks of limits and quotas.

    What has begun has its volume, and perhaps its instances, already: counting them again
    would let it wait for room that it takes itself.
    """
    ask = whole_of(item)
    if not item.begun:
        return ask
    return replace(ask, priority=ask.priority + _BEGUN_PRIORITY, passing={}, lasting={})


def whole_of(item: ItemRecord) -> Ask:
    """What an item takes that has made nothing yet."""
    plan = item.plan
    return Ask(
        key=item.volume_id,
        size_bytes=item.size_bytes,
        priority=int(plan.get("priority") or 0),
        source_type=str(plan.get("type") or ""),
        destination_type=str(plan.get("to_type") or ""),
        passing=plan.get("passing") or {},
        lasting=plan.get("lasting") or {},
    )


def _all(items: Sequence[ItemRecord], reason: Reason) -> dict[int, Reason]:
    return {item.position: reason for item in items}


def _later(item: ItemRecord) -> Reason:
    """The reason it was given with the time; one that has none tries again."""
    why = Why(item.why) if item.why in (Why.RETRY.value, Why.QUOTA.value) else Why.RETRY
    return Reason(why, item.reason)


def _paused(view: View) -> Reason | None:
    if not view.wants.paused:
        return None
    return Reason(Why.PAUSED, f"paused; `blockferry resume {view.fleet.name}` goes on")


def _window(view: View) -> Reason | None:
    windows = view.fleet.windows
    if calendar.may_start(windows, view.now):
        return None
    following = calendar.next_start(windows, view.now)
    if following is None:
        return Reason(Why.WINDOW, "no window is long enough to begin in")
    local = following.astimezone(ZoneInfo(windows.time_zone))
    return Reason(Why.WINDOW, f"the window opens {local:%a %d %b %H:%M} {windows.time_zone}")


def _may_run_out(view: View) -> bool:
    windows = view.fleet.windows
    return windows.at_end is AtEnd.RUN_OUT or calendar.is_open(windows, view.now)


def _current(view: View) -> Wave:
    """The first wave with something left to do."""
    open_ = {item.wave for item in view.items if not item.state.final}
    return next(wave for wave in view.fleet.waves if wave.name in open_)


def _gate(view: View, wave: Wave) -> Reason | None:
    """What keeps a wave from beginning; one that has begun passed its gate."""
    begun = any(item.begun for item in view.items if item.wave == wave.name)
    if begun or wave.name in view.wants.approved:
        return None
    name = view.fleet.name
    if wave.gate.approval:
        return Reason(Why.GATE, f"waits for `blockferry approve {name} {wave.name}`")
    failed, ended = _failures_before(view, wave)
    below = wave.gate.failures_below
    if below is None or not ended or failed / ended < below:
        return None
    return Reason(
        Why.GATE,
        f"{failed} of {ended} of the wave before failed, not below {below * 100:.4g}%; "
        f"`blockferry approve {name} {wave.name}` lets it begin all the same",
    )


REFUSED = "PLAN_REFUSED"
"""What a volume failed of that the plan did not let begin."""


def _failures_before(view: View, wave: Wave) -> tuple[int, int]:
    at = view.fleet.waves.index(wave)
    if at == 0:
        return 0, 0
    before = [item for item in view.items if item.wave == view.fleet.waves[at - 1].name]
    failed = sum(item.state is ItemState.FAILED for item in before)
    return failed, failed + sum(item.state is ItemState.SUCCEEDED for item in before)


def _breaker(view: View, wave: Wave) -> Reason | None:
    breaker = view.fleet.breaker
    earliest = max(view.since, view.now - timedelta(seconds=breaker.within_seconds))
    failed = [
        item
        for item in view.items
        if item.wave == wave.name
        and item.state is ItemState.FAILED
        and item.ended_at is not None
        and item.ended_at >= earliest
    ]
    counts = Counter(item.why for item in failed if item.why != REFUSED)
    worst = next(iter(counts.most_common(1)), None)
    if worst is not None and worst[1] >= breaker.failures:
        return Reason(
            Why.BREAKER,
            f"{worst[1]} volumes of wave {wave.name} failed of {worst[0]}; when that is mended, "
            f"run `blockferry batch` again",
        )
    return _tripped(view, wave)


def _tripped(view: View, wave: Wave) -> Reason | None:
    """A breaker that has tripped stays so until the batch is run again."""
    for item in view.items:
        waits = item.wave == wave.name and item.state is ItemState.WAITING
        if waits and item.why == Why.BREAKER.value:
            return Reason(Why.BREAKER, item.reason)
    return None


def _needs_a_person(wave: Wave, reason: Reason) -> bool:
    """Approval is waited for; what failed too often is not going to mend itself."""
    return reason.why is Why.BREAKER or (reason.why is Why.GATE and not wave.gate.approval)
