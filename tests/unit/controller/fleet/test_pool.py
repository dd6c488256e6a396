"""Which of a fleet's pairs are kept, and that none is left when the fleet is over."""

import time
from datetime import timedelta
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from blockferry.errors import BusyError, FleetError, PreconditionError, UnreachableError
from blockferry.limits import DEAD_MAN_SECONDS, GIB
from blockferry_controller.engine.lease import Holder
from blockferry_controller.engine.pair_records import LaneRecord, PairRecord, PairState
from blockferry_controller.engine.pairs import Order
from blockferry_controller.fleet.pool import (
    AGAIN,
    FORSAKEN,
    SPARED,
    SPEAK,
    TRIES,
    PoolKeeper,
    spared,
    superfluous,
)
from blockferry_controller.fleet.spec import Pool
from blockferry_controller.migration.keeping import PAIR_UNKNOWN_HERE
from blockferry_controller.migration.root import CERTIFICATE_LIFETIME
from tests.fakes.ferry import KeysOfAll
from tests.unit.controller.fleet.stage import NOW
from tests.unit.controller.fleet.test_worker import BROKEN, SPEC, Batch, add, batch, fail

__all__ = ["batch"]

IDLE = 300


def pair(
    name: str, state: PairState = PairState.FREE, *, since: int = 0, lanes: int = 1
) -> PairRecord:
    """One that came to be in its state `since` seconds ago; one is in it, if anybody is."""
    at = NOW - timedelta(seconds=since)
    closed = state not in (PairState.FREE, PairState.TAKEN)
    used = state in (PairState.TAKEN, PairState.DRAINING)
    made = PairRecord(
        name, "shop", "east", "west", "", closed, state is PairState.ENDED, "", {}, at,
        tuple(
            LaneRecord(number, "m-1" if used and not number else "", 1, 1, 1, "", at)
            for number in range(lanes)
        ),
    )  # fmt: skip
    assert made.state is state
    return made


def ended(*pairs: PairRecord, wanted: int) -> list[str]:
    return [one.id for one in superfluous(pairs, idle_seconds=IDLE, wanted=wanted, now=NOW)]


def test_what_is_used_or_will_be_is_kept() -> None:
    assert ended(pair("a"), pair("b", PairState.TAKEN, since=9999), wanted=1) == []


def test_what_nobody_took_for_too_long_ends() -> None:
    assert ended(pair("a", since=IDLE), pair("b", since=IDLE - 1), wanted=9) == ["a"]


def test_more_than_volumes_are_left_end_the_longest_unused_first() -> None:
    assert ended(pair("a", since=1), pair("b", since=3), pair("c", since=2), wanted=1) == ["b", "c"]


@pytest.mark.parametrize(
    ("least", "names"),
    [(0, []), (1, []), (2, ["c"]), (3, ["c", "a"]), (9, ["c", "a"])],
)
def test_so_many_are_spared_the_last_used_first(least: int, names: list[str]) -> None:
    pairs = [
        pair("a", since=9 * IDLE), pair("b", PairState.TAKEN), pair("c", since=2 * IDLE),
        pair("old", since=int(SPARED.total_seconds())), pair("d", PairState.DRAINING),
        pair("e", PairState.ENDING),
    ]  # fmt: skip
    assert [one.id for one in spared(pairs, least=least, now=NOW)] == names


def test_who_comes_to_a_spared_pair_has_time_before_its_certificates_end() -> None:
    assert CERTIFICATE_LIFETIME - timedelta(hours=1) > SPARED


def test_what_is_spared_ends_when_nobody_is_left_to_come() -> None:
    pairs = [pair("a", since=9 * IDLE), pair("b", since=8 * IDLE)]

    def over(wanted: int, kept: list[str]) -> list[str]:
        found = superfluous(pairs, idle_seconds=IDLE, wanted=wanted, now=NOW, kept=kept)
        return [one.id for one in found]

    assert over(9, ["b"]) == ["a"]
    assert over(9, ["a", "b"]) == []
    assert over(1, ["a", "b"]) == ["a"]
    assert over(0, ["a", "b"]) == ["a", "b"]


def test_what_ends_goes_on_ending() -> None:
    assert ended(pair("a", PairState.ENDING), wanted=9) == ["a"]


def test_who_is_to_come_first_has_the_room_beside_those_who_are_in() -> None:
    taken = pair("a", PairState.TAKEN, lanes=4)
    free = [pair("b", since=2, lanes=4), pair("c", since=1, lanes=4)]
    assert ended(taken, *free, wanted=3) == ["b", "c"]
    assert ended(taken, *free, wanted=4) == ["b"]
    assert ended(taken, *free, wanted=8) == []
    # Nobody may come to those who are in a pair that is closed.
    assert ended(pair("a", PairState.DRAINING, lanes=4), *free, wanted=4) == ["b"]


def test_a_lane_is_for_one_that_has_begun_before_it_is_for_the_next() -> None:
    """Between the decision that a volume begins and its taking of a lane."""
    keeper = PoolKeeper(store=cast(Any, None), ferry=cast(Any, None), fleet_id="shop",
                        pool=Pool(2, IDLE), now=lambda: NOW)  # fmt: skip
    keeper.pairs = [pair("a", PairState.TAKEN, lanes=4), pair("b", PairState.DRAINING, lanes=4)]
    assert (keeper.free_lanes(["m-1"]), keeper.shut_lanes) == (3, 3)
    assert keeper.free_lanes(["m-1", "m-2", "m-3"]) == 1
    assert keeper.free_lanes(f"m-{at}" for at in range(1, 9)) == 0


@given(
    st.lists(
        st.tuples(st.sampled_from(PairState), st.integers(0, 2 * IDLE), st.integers(1, 8)),
        max_size=12,
    ),
    st.integers(0, 24),
)
def test_no_taken_pair_is_ever_ended_and_no_more_is_kept_than_is_wanted(
    drawn: list[tuple[PairState, int, int]], wanted: int
) -> None:
    pairs = [
        pair(str(at), state, since=since, lanes=lanes)
        for at, (state, since, lanes) in enumerate(drawn)
    ]
    names = ended(*pairs, wanted=wanted)
    kept = [one for one in pairs if one.id not in names]
    assert len(names) == len(set(names))
    assert not [one for one in pairs if one.guests and one.id in names]
    free = [one for one in kept if one.state is PairState.FREE]
    assert len(free) <= wanted
    assert all(NOW - one.changed_at < timedelta(seconds=IDLE) for one in free)
    # The last one that is kept is needed: what else is there has not room for all.
    room = sorted(one.room for one in free)
    beside = sum(one.room for one in pairs if one.state is PairState.TAKEN)
    assert not free or beside + sum(room) - room[-1] < wanted


def test_few_pairs_serve_many_volumes_and_none_is_left(batch: Batch) -> None:
    for at in range(9):
        add(batch, f"v{at}")
    batch.found(limits={"concurrency": 4}, pool={"max": 2})
    batch.ferry.hold()
    with batch.driving():
        batch.until(lambda: len(batch.ferry.running) == 2)
    assert set(batch.states().values()) == {"SUCCEEDED"}
    assert batch.ferry.most_at_once == 2
    pairs = batch.stage.store.pairs.all()
    assert len(pairs) == 2
    assert sum(one.served for one in pairs) == 9
    assert {one.state for one in pairs} == {PairState.ENDED}


def test_one_pair_serves_several_volumes_at_a_time(batch: Batch) -> None:
    for at in range(9):
        add(batch, f"v{at}", size=(9 - at) * GIB)
    batch.found(limits={"concurrency": 6}, pool={"max": 1, "lanes": 4})
    batch.ferry.hold()
    with batch.driving():
        batch.until(lambda: len(batch.ferry.running) == 4)
        batch.until(lambda: batch.item("v8").why)
        assert batch.item("v8").why == "PAIRS"
        assert "all 4 lanes of 1 pairs are at work" in batch.item("v8").reason
        batch.ferry.let_go()
    assert set(batch.states().values()) == {"SUCCEEDED"}
    assert batch.ferry.most_at_once == 4
    (pair,) = batch.stage.store.pairs.all()
    assert (pair.state, pair.served) == (PairState.ENDED, 9)


def test_who_is_in_a_pair_that_ends_takes_room_of_the_others(batch: Batch) -> None:
    for size, name in enumerate("cba", start=1):
        add(batch, name, size=size * GIB)
    fail(batch, "a", BROKEN)
    batch.found(pool={"max": 1, "lanes": 2})
    batch.ferry.hold()
    with batch.driving():
        batch.until(lambda: len(batch.ferry.running) == 2)
        batch.ferry.let_go_of(batch.stage.east.find_volume("a").id)
        batch.until(lambda: batch.states()["a"] == "FAILED")
        (pair,) = batch.stage.store.pairs.of("shop")
        assert pair.state is PairState.DRAINING
        batch.until(lambda: "1 are of pairs that end" in batch.item("c").reason)
        batch.ferry.let_go()
        batch.until(lambda: batch.states() == {"a": "FAILED", "b": "SUCCEEDED", "c": "SUCCEEDED"})
    pairs = batch.stage.store.pairs.all()
    assert [one.served for one in pairs] == [1, 1]
    assert {one.state for one in pairs} == {PairState.ENDED}


def test_who_waits_for_a_pair_says_so(batch: Batch) -> None:
    add(batch, "a", size=2 * GIB)
    add(batch, "b")
    batch.found(pool={"max": 1})
    batch.ferry.hold()
    with batch.driving():
        batch.until(lambda: batch.item("b").why)
        assert batch.item("b").why == "PAIRS"
        assert "all 1 pairs of instances are at work" in batch.item("b").reason
    assert set(batch.states().values()) == {"SUCCEEDED"}


def test_a_free_pair_holds_no_quota_against_who_takes_it(batch: Batch) -> None:
    """The clouds count the free pair, and have room for no other."""
    add(batch, "a", "b", size=2 * GIB)
    batch.found(pool={"max": 1})
    batch.ferry.hold()
    with batch.driving():
        batch.until(lambda: batch.ferry.running)
        for cloud in (batch.stage.east, batch.stage.west):
            cloud.quotas = {**cloud.quotas, "instances": 0}
        batch.now += timedelta(minutes=2)
        batch.ferry.let_go()
    assert batch.states() == {"a": "SUCCEEDED", "b": "SUCCEEDED"}
    assert [one.served for one in batch.stage.store.pairs.all()] == [2]


def test_a_pair_that_failed_is_replaced(batch: Batch) -> None:
    add(batch, "a", size=2 * GIB)
    add(batch, "b")
    fail(batch, "a", BROKEN)
    batch.found(pool={"max": 1})
    with pytest.raises(FleetError):
        batch.drive()
    pairs = batch.stage.store.pairs.all()
    assert sorted(one.served for one in pairs) == [0, 1]
    assert {one.state for one in pairs} == {PairState.ENDED}


def test_a_pair_whose_guests_nobody_drives_makes_room(batch: Batch) -> None:
    """Of what was skipped while its controller was dead, or what could not leave it."""
    add(batch, "a")
    batch.found(pool={"max": 1})
    store = batch.stage.store
    store.create("m-dead", SPEC, "east/v", "west/v")
    holder = Holder.of_this_process()
    order = Order("m-dead", store.acquire("m-dead", holder), "shop", "east", "west", "", 1)
    store.release("m-dead", holder)
    assert store.pairs.take(order, lambda: "pair-dead", KeysOfAll())
    batch.ferry.hold()
    with batch.driving():

        def begun() -> bool:
            batch.now += timedelta(seconds=5)
            return bool(batch.ferry.running)

        since = batch.now
        batch.until(begun)
        assert batch.now - since >= FORSAKEN
    assert batch.ferry.ended_pairs[0] == "pair-dead"
    assert batch.states() == {"a": "SUCCEEDED"}


def test_an_idle_pair_ends_while_its_fleet_waits(batch: Batch) -> None:
    add(batch, "a", "b")
    batch.found(pool={"max": 2, "idle": "5m"}, limits={"concurrency": 1},
                waves=[{"name": "one", "select": {"names": "a"}},
                       {"name": "two", "gate": {"approval": True}}])  # fmt: skip
    with batch.driving():
        batch.until(lambda: batch.states()["a"] == "SUCCEEDED" and batch.item("b").why == "GATE")
        (free,) = batch.stage.store.pairs.of("shop")
        assert free.state is PairState.FREE
        batch.now = free.changed_at + timedelta(minutes=5)
        batch.until(lambda: not batch.stage.store.pairs.of("shop"))
        batch.stage.store.fleets.want("shop", "approved:two", True)
    assert batch.states() == {"a": "SUCCEEDED", "b": "SUCCEEDED"}
    assert len(batch.ferry.ended_pairs) == 2


GATED: dict[str, Any] = {
    "pool": {"max": 2, "min": 1, "idle": "5m"},
    "waves": [
        {"name": "one", "select": {"names": "a"}},
        {"name": "two", "gate": {"approval": True}},
    ],
}


def test_a_pair_that_is_to_stay_is_spoken_to_and_taken_by_the_next(batch: Batch) -> None:
    add(batch, "a", "b")
    batch.found(**GATED)
    with batch.driving():
        batch.until(lambda: batch.item("b").why == "GATE")
        (free,) = batch.stage.store.pairs.of("shop")
        for hours in range(1, 4):
            batch.now = free.changed_at + timedelta(hours=hours)
            batch.until(lambda hours=hours: len(batch.ferry.spoken_to) == hours)  # type: ignore[misc]
        assert set(batch.ferry.spoken_to) == {free.id}
        batch.stage.store.fleets.want("shop", "approved:two", True)
    assert set(batch.states().values()) == {"SUCCEEDED"}
    assert batch.ferry.ended_pairs == [free.id]


def test_a_pair_is_spoken_to_before_its_instances_give_up(batch: Batch) -> None:
    add(batch, "a", "b")
    batch.found(**GATED)
    with batch.driving():
        batch.until(lambda: batch.item("b").why == "GATE")
        (free,) = batch.stage.store.pairs.of("shop")
        batch.now = free.changed_at + SPEAK - timedelta(seconds=1)
        time.sleep(0.1)
        assert not batch.ferry.spoken_to
        batch.now += timedelta(seconds=1)
        batch.until(lambda: len(batch.ferry.spoken_to) == 1)
        assert timedelta(seconds=DEAD_MAN_SECONDS) / 2 > SPEAK + TRIES * AGAIN
        batch.stage.store.fleets.want("shop", "approved:two", True)


def test_a_pair_that_does_not_hear_us_is_one_like_the_others(batch: Batch) -> None:
    add(batch, "a", "b")
    batch.found(**GATED)
    batch.ferry.deaf = [UnreachableError("AGENT_UNREACHABLE", "nobody answers")] * TRIES
    with batch.driving():
        batch.until(lambda: batch.item("b").why == "GATE")

        batch.now = batch.stage.store.pairs.of("shop")[0].changed_at

        def is_ended() -> bool:
            batch.now += timedelta(seconds=10)
            return bool(batch.ferry.ended_pairs)

        batch.until(is_ended)
        assert batch.ferry.deaf == []
        batch.stage.store.fleets.want("shop", "approved:two", True)
    assert set(batch.states().values()) == {"SUCCEEDED"}
    assert len(batch.ferry.ended_pairs) == 2


def test_a_pair_whose_keys_are_elsewhere_is_asked_once(batch: Batch) -> None:
    add(batch, "a", "b")
    batch.found(**GATED)
    batch.ferry.deaf = [PreconditionError(PAIR_UNKNOWN_HERE, "no keys")] * TRIES
    with batch.driving():
        batch.until(lambda: batch.item("b").why == "GATE")
        (free,) = batch.stage.store.pairs.of("shop")
        batch.now = free.changed_at + timedelta(minutes=5)
        batch.until(lambda: batch.ferry.ended_pairs == [free.id])
        assert batch.ferry.spoken_to == [free.id]
        batch.stage.store.fleets.want("shop", "approved:two", True)


def test_who_is_interrupted_leaves_no_free_pair(batch: Batch) -> None:
    add(batch, "a", "b")
    batch.found(pool={"max": 1}, waves=[{"name": "one", "select": {"names": "a"}},
                                        {"name": "two", "gate": {"approval": True}}])  # fmt: skip
    with batch.driving():
        batch.until(lambda: batch.item("b").why == "GATE")
        assert batch.stage.store.pairs.of("shop")
        assert batch.driver is not None
        batch.driver.interrupt()
    assert batch.stage.store.pairs.of("shop") == []


def test_a_fleet_that_is_cancelled_leaves_no_pair(batch: Batch) -> None:
    add(batch, "a", "b")
    batch.found(pool={"max": 1}, waves=[{"name": "one", "select": {"names": "a"}},
                                        {"name": "two", "gate": {"approval": True}}])  # fmt: skip
    with batch.driving():
        batch.until(lambda: batch.item("b").why == "GATE")
        batch.stage.store.fleets.want("shop", "cancelled", True)
    assert batch.stage.store.pairs.of("shop") == []
    assert batch.stage.store.fleets.get("shop").state == "CANCELLED"


def test_a_pair_that_cannot_be_deleted_is_tried_again_and_told(batch: Batch) -> None:
    add(batch, "a")
    batch.found(pool={"max": 1})
    batch.ferry.pair_errors = [UnreachableError("CLOUD_FAILS", "west is down")] * 9
    with batch.driving():
        batch.until(lambda: batch.states()["a"] == "SUCCEEDED")

        def over() -> bool:
            batch.now += timedelta(seconds=5)
            return batch.stage.store.fleets.get("shop").state == "SUCCEEDED"

        batch.until(over)
    said = batch.stage.store.fleets.get("shop").message
    assert "west is down" in said
    assert "`blockferry cleanup` deletes them" in said
    assert [one.state for one in batch.stage.store.pairs.all()] == [PairState.ENDING]


def test_a_cancelled_fleet_whose_pair_is_left_can_be_cancelled_again(batch: Batch) -> None:
    add(batch, "a", "b")
    batch.found(pool={"max": 1}, waves=[{"name": "one", "select": {"names": "a"}},
                                        {"name": "two", "gate": {"approval": True}}])  # fmt: skip
    batch.ferry.pair_errors = [UnreachableError("CLOUD_FAILS", "west is down")] * 9
    with batch.driving():
        batch.until(lambda: batch.item("b").why == "GATE")
        batch.stage.store.fleets.want("shop", "cancelled", True)

        def over() -> bool:
            batch.now += timedelta(seconds=5)
            return batch.ended is not None

        batch.until(over)
    assert isinstance(batch.ended, BusyError)
    assert batch.ended.reason == "LEFTOVERS"
    batch.ferry.pair_errors.clear()
    assert batch.drive().state == "CANCELLED"
    assert batch.stage.store.pairs.of("shop") == []
