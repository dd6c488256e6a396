"""Who may begin, and why the others wait."""

from collections.abc import Sequence
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from blockferry_controller.fleet.admission import Ask, Route, Why, admit, needs_of
from blockferry_controller.fleet.spec import CloudLimits, Limits

ROUTE = Route("east", "west")
PASSING = {"east": {"instances": 1}, "west": {"instances": 1}}


def ask(key: str, size: int = 10, **more: Any) -> Ask:
    lasting = {"west": {"volumes": 1, "gigabytes": size}}
    return Ask(key, size, passing=PASSING, lasting=lasting, **more)


def started(
    waiting: Sequence[Ask], limits: Limits, left: Any = None, running: Sequence[Ask] = ()
) -> tuple[list[str], dict[str, Why]]:
    found = admit(waiting, running, limits, ROUTE, left or {})
    return [one.key for one in found.start], {k: r.why for k, r in found.waiting.items()}


def test_largest_first_within_the_limit() -> None:
    asks = [ask("a", 1), ask("b", 30), ask("c", 20)]
    assert started(asks, Limits(2)) == (["b", "c"], {"a": Why.FLEET_LIMIT})


def test_priority_before_size() -> None:
    asks = [ask("big", 30), ask("dear", 1, priority=1), ask("late", 40, priority=-1)]
    assert started(asks, Limits(9))[0] == ["dear", "big", "late"]


def test_what_runs_holds_slots() -> None:
    assert started([ask("a")], Limits(1), running=[ask("b")]) == ([], {"a": Why.FLEET_LIMIT})


def test_a_types_limit_holds_back_only_that_type() -> None:
    limits = Limits(9, clouds={"east": CloudLimits(types={"ssd": 1})})
    asks = [ask("a", 30, source_type="ssd"), ask("b", 20, source_type="ssd"), ask("c", 10)]
    assert started(asks, limits) == (["a", "c"], {"b": Why.TYPE_LIMIT})


def test_a_destinations_type_has_a_limit_of_its_own() -> None:
    limits = Limits(9, clouds={"west": CloudLimits(types={"fast": 1})})
    asks = [ask("a", 30, destination_type="fast"), ask("b", 20, destination_type="fast")]
    assert started(asks, limits) == (["a"], {"b": Why.TYPE_LIMIT})


def test_a_clouds_limit() -> None:
    limits = Limits(9, clouds={"west": CloudLimits(concurrency=1)})
    assert started([ask("a", 2), ask("b")], limits)[1] == {"a": Why.CLOUD_LIMIT}


def test_quota_counts_what_was_admitted_just_now() -> None:
    left = {"west": {"instances": 2, "gigabytes": None}}
    asks = [ask("a", 3), ask("b", 2), ask("c", 1)]
    assert started(asks, Limits(9), left) == (["a", "b"], {"c": Why.QUOTA})


def test_a_smaller_one_may_fit() -> None:
    left = {"west": {"gigabytes": 25}}
    asks = [ask("a", 30), ask("b", 20), ask("c", 10), ask("d", 5)]
    found = admit(asks, (), Limits(9), ROUTE, left)
    assert [one.key for one in found.start] == ["b", "d"]
    assert "leaves 25 gigabytes, 30 needed" in found.waiting["a"].text


def test_what_the_cloud_has_not_counted_yet_is_counted_here() -> None:
    left = {"west": {"instances": 1}}
    found = admit([ask("a")], [ask("b")], Limits(9), ROUTE, left, uncounted=[ask("b")])
    assert not found.start
    assert admit([ask("a")], [ask("b")], Limits(9), ROUTE, left).start


def test_who_is_in_a_pair_that_was_counted_takes_only_the_room_of_its_volume() -> None:
    limits = Limits(9, pairs=2)
    left = {"west": {"instances": 1, "volumes": 2}}
    guest = [ask("b")]
    shut = admit([ask("a")], guest, limits, ROUTE, left, uncounted=guest)
    assert shut.waiting["a"].text.startswith("the quota of west leaves 0 instances")
    assert admit([ask("a")], guest, limits, ROUTE, left, uncounted=guest, counted_lanes=1).start
    left["west"]["volumes"] = 1
    full = admit([ask("a")], guest, limits, ROUTE, left, uncounted=guest, counted_lanes=1)
    assert full.waiting["a"].text.startswith("the quota of west leaves 0 volumes")


TYPES = st.sampled_from(["", "ssd", "hdd"])
ASKS = st.lists(
    st.builds(
        ask,
        st.uuids().map(str),
        st.integers(1, 50),
        priority=st.integers(-1, 1),
        source_type=TYPES,
        destination_type=TYPES,
    ),
    max_size=12,
)
CLOUD = st.builds(
    CloudLimits,
    concurrency=st.integers(0, 6),
    types=st.dictionaries(TYPES, st.integers(1, 3)),
)
LIMITS = st.builds(
    Limits,
    concurrency=st.integers(1, 8),
    clouds=st.fixed_dictionaries({}, optional={"east": CLOUD, "west": CLOUD}),
)
LEFT = st.fixed_dictionaries(
    {},
    optional={
        "east": st.fixed_dictionaries({"instances": st.integers(0, 8)}),
        "west": st.fixed_dictionaries(
            {"instances": st.integers(0, 8), "gigabytes": st.none() | st.integers(0, 200)}
        ),
    },
)


@given(ASKS, ASKS, LIMITS, LEFT)
def test_no_limit_and_no_quota_is_ever_overrun(
    waiting: list[Ask], running: list[Ask], limits: Limits, left: Any
) -> None:
    running = running[: limits.concurrency]
    found = admit(waiting, running, limits, ROUTE, left)
    new = list(found.start)
    assert {one.key for one in new} | found.waiting.keys() == {one.key for one in waiting}
    assert not {one.key for one in new} & found.waiting.keys()
    if new:
        assert len(new) + len(running) <= limits.concurrency
    for cloud, own in limits.clouds.items():
        kinds = [o.source_type if cloud == "east" else o.destination_type for o in new + running]
        added = [o.source_type if cloud == "east" else o.destination_type for o in new]
        if own.concurrency and new:
            assert len(kinds) <= own.concurrency
        assert all(kinds.count(kind) <= own.types[kind] for kind in added if kind in own.types)
    for cloud, names in left.items():
        for name, amount in names.items():
            taken = sum(needs_of(one).get(cloud, {}).get(name, 0) for one in new)
            assert amount is None or taken <= amount


@given(ASKS, LIMITS, LEFT)
def test_nothing_waits_that_could_begin(waiting: list[Ask], limits: Limits, left: Any) -> None:
    found = admit(waiting, (), limits, ROUTE, left)
    still = [one for one in waiting if one.key in found.waiting]
    again = admit(still, found.start, limits, ROUTE, left, uncounted=found.start)
    assert not again.start


def test_no_more_than_there_may_be_pairs() -> None:
    asks = [ask("a", 2), ask("b", 1)]
    assert started(asks, Limits(9, pairs=1)) == (["a"], {"b": Why.PAIRS})
    assert started(asks, Limits(9, pairs=2)) == (["a", "b"], {})


SHARED = Limits(9, pairs=2, lanes=3)


def test_a_quota_bears_a_pair_and_not_each_of_its_lanes() -> None:
    asks = [ask(key, size) for size, key in enumerate("edcba", start=1)]
    left = {"east": {"instances": 1}, "west": {"instances": 1, "volumes": 9}}
    begun, waiting = started(asks, SHARED, left)
    assert (begun, waiting) == (["a", "b", "c"], {"d": Why.QUOTA, "e": Why.QUOTA})
    left["west"]["volumes"] = 2
    assert started(asks, SHARED, left)[0] == ["a", "b"]


def test_who_takes_a_free_lane_needs_no_instance() -> None:
    asks = [ask("a", 3), ask("b", 2), ask("c", 1)]
    none = {"east": {"instances": 0}, "west": {"instances": 0}}
    found = admit(asks, (), SHARED, ROUTE, none, free_lanes=2)
    assert [one.key for one in found.start] == ["a", "b"]
    assert found.waiting["c"].why is Why.QUOTA


def test_no_more_begin_than_there_are_lanes() -> None:
    asks, running = [ask(str(at)) for at in range(9)], [ask("r")]
    assert len(admit(asks, running, SHARED, ROUTE, {}).start) == 5
    found = admit(asks, running, SHARED, ROUTE, {}, shut_lanes=2)
    assert len(found.start) == 3
    assert {reason.why for reason in found.waiting.values()} == {Why.PAIRS}
    assert "2 are of pairs that end" in next(iter(found.waiting.values())).text
