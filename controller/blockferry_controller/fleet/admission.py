"""Which waiting volumes may begin now, and why the others wait. Pure.

Plan and batch decide by this one function: the plan on a clock it makes up, the batch on
the real one.

Rules:
* A volume takes one slot of each: the fleet, the source cloud, the destination cloud, its
  type in each. What is not admitted takes none.
* Priority first, then size, largest first: the long ones must not be what is left when
  the others are through. A volume that some limit holds back does not hold back another
  that the limit does not concern.
* A volume takes a lane of one of the fleet's pairs of instances, where it has such; the first of
  a pair has it booted.
* Quota: an instance's worth on both sides while it runs, and at the destination the volume
  for good. What does not fit now waits; what can never fit says so in the plan.
"""

import heapq
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from enum import Enum
from typing import TypeAlias

from msgspec import Struct, field
from msgspec.structs import replace

from blockferry_controller.fleet.spec import Limits

Amounts: TypeAlias = Mapping[str, int]
"""By the names of Quota."""
Left: TypeAlias = Mapping[str, Mapping[str, int | None]]
"""What quotas leave: by cloud, then by the names of Quota; None where it is not told."""


class Why(str, Enum):
    """Why a volume waits."""

    FLEET_LIMIT = "FLEET_LIMIT"
    PAIRS = "PAIRS"
    CLOUD_LIMIT = "CLOUD_LIMIT"
    TYPE_LIMIT = "TYPE_LIMIT"
    QUOTA = "QUOTA"
    WAVE = "WAVE"
    GATE = "GATE"
    WINDOW = "WINDOW"
    BREAKER = "BREAKER"
    RETRY = "RETRY"
    PAUSED = "PAUSED"


class Reason(Struct, frozen=True):
    """Why, in a word for programs and a sentence for people."""

    why: Why
    text: str

    def __str__(self) -> str:
        return f"{self.why.value}: {self.text}"


class Ask(Struct, frozen=True):
    """A volume that wants to begin, or runs.

    Attributes:
        key: Unique in the fleet.
        source_type, destination_type: Empty where not known: no type's limit holds then.
        passing: Taken of the quota of each cloud while it runs.
        lasting: Taken of the destination's for good.
    """

    key: str
    size_bytes: int
    priority: int = 0
    source_type: str = ""
    destination_type: str = ""
    passing: Mapping[str, Amounts] = field(default_factory=dict)
    lasting: Mapping[str, Amounts] = field(default_factory=dict)


class Route(Struct, frozen=True):
    """Where a fleet goes from and to."""

    source: str
    destination: str


class Admitted(Struct, frozen=True):
    """Who may begin, in order, and why each of the others waits, by its key."""

    start: tuple[Ask, ...]
    waiting: Mapping[str, Reason]


class _Taken(Struct):
    """What is in use, counted up as asks are admitted."""

    limits: Limits
    route: Route
    left: dict[str, dict[str, int | None]]
    shut_lanes: int = 0
    free_lanes: int = 0
    total: int = 0
    types: Counter[tuple[str, str]] = field(default_factory=Counter)

    def refuses(self, ask: Ask) -> Reason | None:
        """Why `ask` may not begin now."""
        if self.total >= self.limits.concurrency:
            most = self.limits.concurrency
            return Reason(Why.FLEET_LIMIT, f"{most} volumes move, as limits.concurrency says")
        return self._of_pairs() or self._of_clouds(ask) or self._of_quota(ask)

    def _of_pairs(self) -> Reason | None:
        most, lanes = self.limits.pairs, self.limits.lanes
        if not most or self.total < most * lanes - self.shut_lanes:
            return None
        if lanes == 1:
            return Reason(Why.PAIRS, f"all {most} pairs of instances are at work, as pool.max says")
        ends = f"; {self.shut_lanes} are of pairs that end" if self.shut_lanes else ""
        said = (
            f"all {most * lanes} lanes of {most} pairs are at work, as pool.max and pool.lanes say"
        )
        return Reason(Why.PAIRS, said + ends)

    def _of_clouds(self, ask: Ask) -> Reason | None:
        for cloud, kind in self._ends(ask):
            limits = self.limits.clouds.get(cloud)
            if limits is None:
                continue
            if limits.concurrency and self.total >= limits.concurrency:
                said = f"{limits.concurrency} volumes move in {cloud}, as its limit says"
                return Reason(Why.CLOUD_LIMIT, said)
            most = limits.types.get(kind, 0)
            if most and self.types[cloud, kind] >= most:
                said = f"{most} volumes of type {kind} move in {cloud}, as its limit says"
                return Reason(Why.TYPE_LIMIT, said)
        return None

    def _of_quota(self, ask: Ask) -> Reason | None:
        for cloud, amounts in self._needs(ask).items():
            left = self.left.get(cloud, {})
            for name, amount in amounts.items():
                there = left.get(name)
                if there is not None and there < amount:
                    free = max(there, 0)
                    said = f"the quota of {cloud} leaves {free} {name}, {amount} needed"
                    return Reason(Why.QUOTA, said)
        return None

    def hold(self, ask: Ask) -> None:
        """Count the slots that `ask` holds."""
        self.total += 1
        self.types.update(self._ends(ask))

    def charge(self, ask: Ask) -> None:
        """Count what `ask` takes of quotas, and its lane."""
        for cloud, amounts in self._needs(ask).items():
            left = self.left.setdefault(cloud, {})
            for name, amount in amounts.items():
                there = left.get(name)
                if there is not None:
                    left[name] = there - amount
        if self.limits.pairs:
            self.free_lanes += -1 if self.free_lanes else self.limits.lanes - 1

    def _needs(self, ask: Ask) -> dict[str, dict[str, int]]:
        """Of quotas: of who takes a lane of a pair that is there, nothing but the volume."""
        return needs_of(replace(ask, passing={}) if self.free_lanes else ask)

    def _ends(self, ask: Ask) -> tuple[tuple[str, str], tuple[str, str]]:
        return (
            (self.route.source, ask.source_type),
            (self.route.destination, ask.destination_type),
        )


def admit(
    waiting: Iterable[Ask],
    running: Sequence[Ask],
    limits: Limits,
    route: Route,
    left: Left,
    *,
    uncounted: Sequence[Ask] = (),
    counted_lanes: int = 0,
    free_lanes: int = 0,
    shut_lanes: int = 0,
) -> Admitted:
    """Decide who begins.

    Args:
        waiting: What its wave, gate and window let begin.
        running: What holds slots.
        limits: As they are now.
        route: Both clouds.
        left: What the quotas left when they were last asked.
        uncounted: Those of `running` that the clouds had not counted by then.
        counted_lanes: How many of these are in a pair that the clouds had counted.
        free_lanes: Of pairs that are there, for whoever begins.
        shut_lanes: Of pairs that nobody may take any more, and that count all the same.
    """
    own = {cloud: dict(names) for cloud, names in left.items()}
    taken = _Taken(limits, route, own, shut_lanes, free_lanes=counted_lanes)
    for ask in running:
        taken.hold(ask)
    for ask in uncounted:
        taken.charge(ask)
    taken.free_lanes = free_lanes
    queues = _queues(waiting)
    heads = [(_order(queue[-1]), at) for at, queue in enumerate(queues)]
    heapq.heapify(heads)
    start: list[Ask] = []
    held: dict[str, Reason] = {}
    while heads:
        _, at = heapq.heappop(heads)
        queue = queues[at]
        ask = queue[-1]
        reason = taken.refuses(ask)
        if reason is None:
            taken.hold(ask)
            taken.charge(ask)
            start.append(ask)
            queue.pop()
        elif reason.why is Why.QUOTA and _is_about_size(ask, queue):
            # A smaller one may still fit.
            held[ask.key] = reason
            queue.pop()
        else:
            held.update(dict.fromkeys((one.key for one in queue), reason))
            queue.clear()
        if queue:
            heapq.heappush(heads, (_order(queue[-1]), at))
    return Admitted(tuple(start), held)


def _queues(waiting: Iterable[Ask]) -> list[list[Ask]]:
    """A queue for each pair of types, for they share limits; the next one last."""
    queues: dict[tuple[str, str], list[Ask]] = {}
    for ask in waiting:
        queues.setdefault((ask.source_type, ask.destination_type), []).append(ask)
    for queue in queues.values():
        queue.sort(key=_order, reverse=True)
    return list(queues.values())


def _order(ask: Ask) -> tuple[int, int, str]:
    return -ask.priority, -ask.size_bytes, ask.key


def _is_about_size(ask: Ask, queue: Sequence[Ask]) -> bool:
    """Whether others of the queue need less than `ask`."""
    return any(one.size_bytes < ask.size_bytes for one in queue)


def needs_of(ask: Ask) -> dict[str, dict[str, int]]:
    """By cloud: what it takes while it runs and for good, together."""
    needs: dict[str, dict[str, int]] = {}
    for part in (ask.passing, ask.lasting):
        for cloud, amounts in part.items():
            own = needs.setdefault(cloud, {})
            for name, amount in amounts.items():
                own[name] = own.get(name, 0) + amount
    return needs
