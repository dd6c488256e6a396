"""What `make fleet-scale` finds when a promise is broken: each by the line that is for it."""

from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
from msgspec.structs import replace

from blockferry_controller.engine.fleet_records import ItemRecord, ItemState
from tests.scale.promises import judge
from tests.scale.run import Played, Plot

ITEM = ItemRecord(0, "s-1", "v00000", 1 << 30, "all", ItemState.SUCCEEDED, {}, migration_id="m-1")
JOURNAL = {
    "migrations": 1, "commands": 9, "refused": 0, "again": 0, "taken_over": 0, "late": 0,
    "shared": 0,
}  # fmt: skip
WORLD: dict[str, Any] = {
    "calls": {"find_volume": 30}, "struck": {}, "journal": JOURNAL, "copied": ["s-1"],
    "copied_twice": [], "unequal": [], "left": [], "overrun": [], "refusals": {},
    "peaks": {"west": {"instances": (1, 1)}},
}  # fmt: skip


def good() -> Played:
    """One volume, moved as it should be."""
    return Played(
        Plot(volumes=1, at_once=1), "sqlite", seconds=2.0, exit_code=0,
        peak_bytes={"batch": 100 << 20}, cpu_seconds={"batch": 1.0}, items=[ITEM],
        migrations={"m-1": "SUCCEEDED"}, final_events=Counter({0: 1}), world=dict(WORLD),
    )  # fmt: skip


def broken(played: Played) -> list[str]:
    return [line.what for line in judge(played) if line.holds is False]


def world(**changes: object) -> Callable[[Played], object]:
    return lambda played: played.world.update(changes)


def journal(**changes: int) -> Callable[[Played], object]:
    return world(journal={**JOURNAL, **changes})


def set_(**changes: object) -> Callable[[Played], object]:
    return lambda played: played.__dict__.update(changes)


ENDS, COPIES, DRIVEN = (
    "volumes, each in one final state", "copies", "driven twice, by the agents' log",
)  # fmt: skip


def test_nothing_is_found_where_all_is_well() -> None:
    assert broken(good()) == []


@pytest.mark.parametrize(
    ("change", "found"),
    [
        (set_(items=[replace(ITEM, state=ItemState.RUNNING)]), [ENDS, COPIES]),
        (set_(items=[]), [ENDS, COPIES]),
        (set_(final_events=Counter({0: 2})), [ENDS]),
        (set_(final_events=Counter()), [ENDS]),
        (set_(migrations={"m-1": "FAILED"}), [ENDS]),
        (set_(removed=frozenset({"v00000"}), exit_code=3), ["failed"]),
        (world(copied=[]), [COPIES]),
        (world(copied_twice=["s-1"]), [COPIES]),
        (world(unequal=["d-1"]), [COPIES]),
        (
            set_(
                plot=Plot(volumes=2, at_once=1),
                items=[ITEM, replace(ITEM, position=1)],
                final_events=Counter({0: 1, 1: 1}),
            ),
            ["migrations, one a volume"],
        ),
        (world(left=["port p in east"]), ["left over"]),
        (set_(keys_left=1), ["left over"]),
        (world(overrun=["west: 2 instances of 1"]), ["quotas, at most"]),
        (set_(peak_bytes={"batch": 501 << 20}), ["memory of a controller, at most"]),
        (world(calls={"quota": 41}), ["calls of both clouds, a migration"]),
        (set_(exit_code=1), ["exit code of batch"]),
        (journal(late=1), [DRIVEN]),
        (journal(shared=1), [DRIVEN]),
        (set_(taken_over={"killed": 1.0}), [DRIVEN]),
    ],
    ids=lambda value: "+".join(value) if isinstance(value, list) else "",
)
def test_each_broken_promise_is_found(change: Callable[[Played], object], found: list[str]) -> None:
    played = good()
    change(played)
    assert broken(played) == found


def test_a_slow_take_over_is_found() -> None:
    played = good()
    played.taken_over = {"killed": 61.0}
    played.world["journal"] = {**JOURNAL, "taken_over": 1}
    assert broken(played) == ["worker killed: all taken over after"]
