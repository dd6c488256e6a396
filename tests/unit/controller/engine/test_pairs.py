"""Who has a pair: one at a time, whoever asks at once, is cut off, or dies."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta
from itertools import count

import pytest

from blockferry_controller.engine import pairs
from blockferry_controller.engine.lease import Holder
from blockferry_controller.engine.pairs import Order, PairRecord, PairState
from blockferry_controller.engine.state import StateStore
from blockferry_controller.spec import Endpoint, Kind, Spec

NUMBERS = count(1)
SPEC = Spec(Kind.MIGRATE, Endpoint("east", "data"), Endpoint("west"))


def order(store: StateStore, migration_id: str, *, most: int = 2, fit: str = "small") -> Order:
    """What the newest controller of a migration, made if need be, would ask for."""
    if migration_id not in {one.id for one in store.listing.migrations()}:
        store.create(migration_id, SPEC, "east/data", "west/data")
    holder = Holder.of_this_process()
    epoch = store.acquire(migration_id, holder)
    store.release(migration_id, holder)
    return Order(migration_id, epoch, "shop", "east", "west", fit, most)


def take(store: StateStore, wanted: Order, *, ours: bool = True) -> PairRecord | None:
    return store.pairs.take(wanted, lambda: f"pair-{next(NUMBERS)}", lambda _: ours)


def taken(store: StateStore, wanted: Order, *, ours: bool = True) -> PairRecord:
    found = take(store, wanted, ours=ours)
    assert found is not None
    return found


def test_who_comes_next_has_the_same_under_a_higher_epoch(store: StateStore) -> None:
    first = taken(store, order(store, "m-a"))
    assert (first.state, first.migration_id, first.epoch, first.served) == (
        PairState.TAKEN, "m-a", 1, 0,
    )  # fmt: skip
    assert store.pairs.give_back(first, {"source_met": "s-1"})
    second = taken(store, order(store, "m-b"))
    assert (second.id, second.migration_id, second.epoch, second.served) == (
        first.id, "m-b", 2, 1,
    )  # fmt: skip
    assert second.facts == {"source_met": "s-1"}
    assert store.pairs.held_by("m-a") is None


def test_who_resumes_has_its_own_again_under_a_higher_epoch(store: StateStore) -> None:
    first = taken(store, order(store, "m-a"))
    again = taken(store, order(store, "m-a"))
    assert (again.id, again.epoch, again.taken_in) == (first.id, 2, 2)


def test_a_controller_that_was_cut_off_changes_nothing(store: StateStore) -> None:
    cut_off = order(store, "m-a")
    before = taken(store, cut_off)
    after = taken(store, order(store, "m-a"))
    assert take(store, cut_off) is None
    assert not store.pairs.give_back(before, {})
    assert store.pairs.end(before) is None
    assert store.pairs.held_by("m-a") == after
    assert store.pairs.give_back(after, {})
    # Free, it is not for that one either.
    assert take(store, cut_off) is None
    assert [one.state for one in store.pairs.of("shop")] == [PairState.FREE]


def test_of_many_one_gets_it(store: StateStore) -> None:
    store.pairs.give_back(taken(store, order(store, "m-0")), {})
    wanted = [order(store, f"m-{at}", most=9) for at in range(1, 6)]
    with ThreadPoolExecutor(5) as pool:
        found = list(pool.map(lambda one: take(store, one), wanted))
    ids = [one.id for one in found if one is not None]
    assert len(set(ids)) == 5
    assert sorted(one.served for one in found if one is not None) == [0, 0, 0, 0, 1]


@pytest.mark.parametrize("why", ["fit", "keys"])
def test_what_cannot_be_used_makes_room(store: StateStore, why: str) -> None:
    first = taken(store, order(store, "m-a", most=1))
    store.pairs.give_back(first, {})
    wanted = order(store, "m-b", most=1)
    second = taken(
        store, replace(wanted, fit="large") if why == "fit" else wanted, ours=why == "fit"
    )
    assert second.id != first.id
    states = {one.id: one.state for one in store.pairs.of("shop")}
    assert states == {first.id: PairState.ENDING, second.id: PairState.TAKEN}


def test_what_ends_is_nobodys(store: StateStore) -> None:
    first = taken(store, order(store, "m-a"))
    ending = store.pairs.end(first)
    assert ending is not None
    assert store.pairs.held_by("m-a") is None
    assert taken(store, order(store, "m-b")).id != first.id
    store.pairs.ended(ending)
    store.pairs.ended(ending)
    assert first.id not in {one.id for one in store.pairs.of("shop")}
    found = store.pairs.find(first.id)
    assert found is not None
    assert found.state is PairState.ENDED


def test_what_was_never_spoken_to_has_served_nobody(store: StateStore) -> None:
    first = taken(store, order(store, "m-a"))
    assert store.pairs.put_back(first)
    assert taken(store, order(store, "m-b")).served == 0


def test_what_is_too_old_serves_nobody_any_more(
    store: StateStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = taken(store, order(store, "m-a"))
    store.pairs.give_back(first, {})
    monkeypatch.setattr(pairs, "LIFETIME", timedelta(0))
    assert taken(store, order(store, "m-b")).id != first.id
