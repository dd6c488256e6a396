"""What was promised of a fleet of thousands, held against what was played."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

from blockferry_controller.engine.fleet_records import ItemState
from tests.scale.run import Played

MEMORY_BYTES = 500 << 20
CALLS = 40.0
"""Of both clouds, a migration."""
TAKEN_OVER_SECONDS = 60.0


@dataclass(frozen=True)
class Line:
    """A line of the table; `holds` is None where nothing was promised."""

    what: str
    found: str
    holds: bool | None = None

    def __str__(self) -> str:
        word = {None: "    ", True: "ok  ", False: "FAIL"}[self.holds]
        return f"  {word} {self.what:<34} {self.found}"


def judge(played: Played) -> list[Line]:
    """The table, in order."""
    return [*_ends(played), *_copies(played), *_effort(played), *_drivers(played)]


def _ends(played: Played) -> Iterator[Line]:
    plot = played.plot
    states = Counter(item.state for item in played.items)
    told = ", ".join(f"{state.value} {count}" for state, count in states.most_common())
    # One event of the history, of the item and of its migration each say one and the same.
    strange = [
        item.name
        for item in played.items
        if not item.state.final
        or played.final_events[item.position] != 1
        or played.migrations.get(item.migration_id) != item.state.value
    ]
    told += f"; not in exactly one: {', '.join(strange[:5])}" if strange else ""
    yield Line("volumes, each in one final state", told,
               not strange and len(played.items) == plot.volumes)  # fmt: skip
    failed = {item.name for item in played.items if item.state is ItemState.FAILED}
    odd = failed.symmetric_difference(played.removed)
    reasons = [f"{item.name}: {item.reason}" for item in played.items if item.name in odd]
    told = f"{len(failed)}, those that their owner deleted on the way: {len(played.removed)}"
    told += f"; others: {'; '.join(reasons[:5])}" if odd else ""
    yield Line("failed", told, not odd)


def _copies(played: Played) -> Iterator[Line]:
    world = played.world
    copied = {item.volume_id for item in played.items if item.state is ItemState.SUCCEEDED}
    missing = sorted(copied.symmetric_difference(world["copied"]))
    wrong = [*missing, *world["copied_twice"], *world["unequal"]]
    named = f": {', '.join(wrong[:5])}" if wrong else ""
    yield Line("copies", f"{len(copied)} equal, one of each; wrong: {len(wrong)}{named}", not wrong)
    migrations = Counter(item.migration_id for item in played.items if item.migration_id)
    shared = [own for own, volumes in migrations.items() if volumes > 1]
    told = f"{len(migrations)}{': two volumes have ' if shared else ''}{', '.join(shared[:5])}"
    yield Line("migrations, one a volume", told, not shared)
    left = [*world["left"], *["keys"] * played.keys_left]
    yield Line("left over", f"{len(left)}{': ' if left else ''}{', '.join(left[:5])}", not left)
    full = "; ".join(
        f"{cloud} {', '.join(f'{key} {most} of {limit}' for key, (most, limit) in peaks.items())}"
        for cloud, peaks in world["peaks"].items()
    )
    over = ", ".join(world["overrun"])
    yield Line("quotas, at most", over or full, not over)
    yield Line("allocations that a quota refused", str(sum(world["refusals"].values())))
    struck = ", ".join(f"{count} times {what}" for what, count in sorted(world["struck"].items()))
    yield Line("injected", struck or "nothing")


def _effort(played: Played) -> Iterator[Line]:
    memory = ", ".join(f"{name} {size >> 20} MiB" for name, size in played.peak_bytes.items())
    yield Line("memory of a controller, at most", memory,
               max(played.peak_bytes.values()) < MEMORY_BYTES)  # fmt: skip
    calls = played.world["calls"]
    each = sum(calls.values()) / played.plot.volumes
    yield Line("calls of both clouds, a migration", f"{each:.1f}", each <= CALLS)
    for verb, count in calls.items():
        yield Line(f"    {verb}", f"{count / played.plot.volumes:.2f}")
    cpu = sum(played.cpu_seconds.values())
    rate = played.plot.volumes / played.seconds
    yield Line("time", f"{played.seconds:.0f} s, {rate:.1f} volumes a second; controllers' CPU "
               f"{cpu:.0f} s, {1000 * cpu / played.plot.volumes:.0f} ms a volume")  # fmt: skip
    yield Line("exit code of batch", str(played.exit_code), played.exit_code == _exit_code(played))


def _exit_code(played: Played) -> int:
    return 3 if played.removed else 0


def _drivers(played: Played) -> Iterator[Line]:
    journal = played.world["journal"]
    twice = journal["late"] + journal["shared"]
    yield Line(
        "driven twice, by the agents' log",
        f"{twice} of {journal['migrations']} migrations; {journal['commands']} commands obeyed, "
        f"{journal['refused']} refused as of an epoch that is over, {journal['again']} migrations "
        f"with agents of more than one attempt, {journal['taken_over']} of more than one process",
        twice == 0 and (journal["taken_over"] > 0 or not played.taken_over),
    )
    for name, seconds in played.taken_over.items():
        yield Line(f"worker {name}: all taken over after", f"{seconds:.0f} s",
                   seconds < TAKEN_OVER_SECONDS)  # fmt: skip
