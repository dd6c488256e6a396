"""Which of a fleet's pairs are kept, and that none is left when the fleet is over."""

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from blockferry.errors import BusyError, FleetError, UnreachableError
from blockferry.limits import GIB
from blockferry_controller.engine.pairs import PairRecord, PairState
from blockferry_controller.fleet.pool import superfluous
from tests.unit.controller.fleet.stage import NOW
from tests.unit.controller.fleet.test_worker import BROKEN, Batch, add, batch, fail

__all__ = ["batch"]

IDLE = 300


def pair(name: str, state: PairState = PairState.FREE, *, since: int = 0) -> PairRecord:
    """One that came to be in its state `since` seconds ago."""
    at = NOW - timedelta(seconds=since)
    return PairRecord(name, "shop", "east", "west", "", state, "", 1, 1, 1, {}, at, at)


def ended(*pairs: PairRecord, wanted: int) -> list[str]:
    return [one.id for one in superfluous(pairs, idle_seconds=IDLE, wanted=wanted, now=NOW)]


def test_what_is_used_or_will_be_is_kept() -> None:
    assert ended(pair("a"), pair("b", PairState.TAKEN, since=9999), wanted=1) == []


def test_what_nobody_took_for_too_long_ends() -> None:
    assert ended(pair("a", since=IDLE), pair("b", since=IDLE - 1), wanted=9) == ["a"]


def test_more_than_volumes_are_left_end_the_longest_unused_first() -> None:
    assert ended(pair("a", since=1), pair("b", since=3), pair("c", since=2), wanted=1) == ["b", "c"]


def test_what_ends_goes_on_ending() -> None:
    assert ended(pair("a", PairState.ENDING), wanted=9) == ["a"]


@given(
    st.lists(st.tuples(st.sampled_from(PairState), st.integers(0, 2 * IDLE)), max_size=12),
    st.integers(0, 12),
)
def test_no_taken_pair_is_ever_ended_and_no_more_is_kept_than_is_wanted(
    drawn: list[tuple[PairState, int]], wanted: int
) -> None:
    pairs = [pair(str(at), state, since=since) for at, (state, since) in enumerate(drawn)]
    names = ended(*pairs, wanted=wanted)
    kept = [one for one in pairs if one.id not in names]
    assert len(names) == len(set(names))
    assert not [one for one in pairs if one.state is PairState.TAKEN and one.id in names]
    free = [one for one in kept if one.state is PairState.FREE]
    assert len(free) <= wanted
    assert all(NOW - one.changed_at < timedelta(seconds=IDLE) for one in free)


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
