"""Who has a lane of a pair: one at a time, whoever asks at once, is cut off, or dies."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from itertools import count

import pytest
from msgspec.structs import replace

from blockferry.errors import BusyError
from blockferry_controller.engine import pairs
from blockferry_controller.engine.lease import Holder
from blockferry_controller.engine.pair_records import Held, PairState
from blockferry_controller.engine.pairs import Order
from blockferry_controller.engine.state import StateStore
from blockferry_controller.spec import Endpoint, Kind, Spec
from tests.fakes.ferry import KeysOfAll

NUMBERS = count(1)
SPEC = Spec(Kind.MIGRATE, Endpoint("east", "data"), Endpoint("west"))


class NoKeys(KeysOfAll):
    """Another host's are not here."""

    def have(self, lane_id: str) -> bool:
        return False


def order(
    store: StateStore, migration_id: str, *, most: int = 2, fit: str = "small", lanes: int = 1
) -> Order:
    """What the newest controller of a migration, made if need be, would ask for."""
    if migration_id not in {one.id for one in store.listing.migrations()}:
        store.create(migration_id, SPEC, "east/data", "west/data")
    holder = Holder.of_this_process()
    epoch = store.acquire(migration_id, holder)
    store.release(migration_id, holder)
    return Order(migration_id, epoch, "shop", "east", "west", fit, most, lanes)


def take(store: StateStore, wanted: Order, *, ours: bool = True) -> Held | None:
    keys = KeysOfAll() if ours else NoKeys()
    return store.pairs.take(wanted, lambda: f"pair-{next(NUMBERS)}", keys)


def taken(store: StateStore, wanted: Order, *, ours: bool = True) -> Held:
    found = take(store, wanted, ours=ours)
    assert found is not None
    return found


def several(store: StateStore, count: int, *, lanes: int, most: int = 9) -> list[Held]:
    """Lanes that so many migrations take, one after another."""
    wanted = [order(store, f"m-{at}", lanes=lanes, most=most) for at in range(count)]
    return [taken(store, one) for one in wanted]


def places(found: Sequence[Held | None]) -> list[tuple[str, int]]:
    return [(one.pair.id, one.number) for one in found if one is not None]


def states(store: StateStore) -> list[PairState]:
    return [one.state for one in store.pairs.of("shop")]


def test_who_comes_next_has_the_same_under_a_higher_epoch(store: StateStore) -> None:
    first = taken(store, order(store, "m-a"))
    assert (first.pair.state, first.lane.migration_id, first.epoch, first.pair.served) == (
        PairState.TAKEN, "m-a", 1, 0,
    )  # fmt: skip
    assert store.pairs.give_back(first, {"source_met": "s-1"})
    second = taken(store, order(store, "m-b"))
    assert (second.id, second.lane.migration_id, second.epoch, second.pair.served) == (
        first.id, "m-b", 2, 1,
    )  # fmt: skip
    assert second.pair.facts == {"source_met": "s-1"}
    assert store.pairs.held_by("m-a") is None


def test_who_resumes_has_its_own_again_under_a_higher_epoch(store: StateStore) -> None:
    first = taken(store, order(store, "m-a"))
    again = taken(store, order(store, "m-a"))
    assert (again.id, again.epoch, again.lane.taken_in) == (first.id, 2, 2)


def test_a_controller_that_was_cut_off_changes_nothing(store: StateStore) -> None:
    cut_off = order(store, "m-a")
    before = taken(store, cut_off)
    after = taken(store, order(store, "m-a"))
    assert take(store, cut_off) is None
    for change in (store.pairs.close, store.pairs.leave):
        assert change(before) is None
    assert store.pairs.give_back(before, {}) is None
    assert store.pairs.end(before.pair) is None
    assert store.pairs.begin_boot(before) == "m-a"
    assert not store.pairs.condemn(before, "s-1")
    store.pairs.remember(before, source_open=True)
    assert store.pairs.held_by("m-a") == after
    assert store.pairs.give_back(after, {})
    # Free, it is not for that one either.
    assert take(store, cut_off) is None
    assert states(store) == [PairState.FREE]


def test_of_many_one_gets_it(store: StateStore) -> None:
    store.pairs.give_back(taken(store, order(store, "m-0")), {})
    wanted = [order(store, f"m-{at}", most=9) for at in range(1, 6)]
    with ThreadPoolExecutor(5) as pool:
        found = list(pool.map(lambda one: take(store, one), wanted))
    assert len(set(places(found))) == 5
    assert sorted(one.pair.served for one in found if one is not None) == [0, 0, 0, 0, 1]


def test_many_that_come_at_once_make_one_pair_and_have_a_lane_each(store: StateStore) -> None:
    wanted = [order(store, f"m-{at}", lanes=4, most=1) for at in range(4)]
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda one: take(store, one), wanted))
    (pair,) = store.pairs.of("shop")
    assert sorted(places(found)) == [(pair.id, number) for number in range(4)]
    assert {one.id for one in found if one is not None} == {f"{pair.id}-{at}" for at in range(4)}
    assert {one.epoch for one in found if one is not None} == {1}


def test_no_more_pairs_are_made_than_may_be(store: StateStore) -> None:
    several(store, 4, lanes=2, most=2)
    with pytest.raises(BusyError) as caught:
        take(store, order(store, "m-more", lanes=2, most=2))
    assert caught.value.reason == "PAIRS_TAKEN"
    assert len(store.pairs.all()) == 2


def test_the_fullest_pair_is_taken(store: StateStore) -> None:
    found = several(store, 6, lanes=3)
    first, second = (found[at].pair.id for at in (0, 3))
    for at in (0, 1, 4):
        store.pairs.give_back(found[at], {})
    # The second has two of three: it is filled before the first.
    assert places([taken(store, order(store, "m-x", lanes=3))]) == [(second, 1)]
    assert places([taken(store, order(store, "m-y", lanes=3))]) == [(first, 0)]


def test_no_lane_is_left_until_its_certificates_have_ended(store: StateStore) -> None:
    """One volume at a time beside a long one: it comes to every lane in turn."""
    several(store, 1, lanes=4)
    seen = []
    for at in range(6):
        found = taken(store, order(store, f"m-short-{at}", lanes=4))
        seen.append(found.number)
        store.pairs.give_back(found, {})
    assert seen == [1, 2, 3, 1, 2, 3]


@pytest.mark.parametrize("why", ["fit", "keys"])
def test_what_cannot_be_used_makes_room(store: StateStore, why: str) -> None:
    first = taken(store, order(store, "m-a", most=1))
    store.pairs.give_back(first, {})
    wanted = order(store, "m-b", most=1)
    second = taken(
        store, replace(wanted, fit="large") if why == "fit" else wanted, ours=why == "fit"
    )
    assert second.pair.id != first.pair.id
    found = {one.id: one.state for one in store.pairs.of("shop")}
    assert found == {first.pair.id: PairState.ENDING, second.pair.id: PairState.TAKEN}


def test_what_is_closed_takes_nobody_and_lets_those_end_who_are_in(store: StateStore) -> None:
    first, second = several(store, 2, lanes=3)
    assert store.pairs.close(first)
    assert states(store) == [PairState.DRAINING]
    # It counts as long as somebody is in.
    with pytest.raises(BusyError):
        take(store, order(store, "m-x", lanes=3, most=1))
    left = store.pairs.leave(first)
    assert left is not None
    assert left.state is PairState.DRAINING
    assert store.pairs.held_by("m-0") is None
    # Who was in has its lane over its controller's death.
    again = taken(store, order(store, "m-1", lanes=3))
    assert (again.id, again.epoch) == (second.id, 2)
    last = store.pairs.give_back(again, {})
    assert last is not None
    assert last.state is PairState.ENDING
    other = taken(store, order(store, "m-x", lanes=3, most=1))
    assert other.pair.id != first.pair.id


def test_of_two_that_leave_at_once_one_knows_that_it_is_the_last(store: StateStore) -> None:
    found = several(store, 8, lanes=8)
    store.pairs.close(found[0])
    with ThreadPoolExecutor(8) as pool:
        left = list(pool.map(store.pairs.leave, found))
    assert [one.state for one in left if one is not None].count(PairState.ENDING) == 1


def test_what_ends_is_nobodys(store: StateStore) -> None:
    first = taken(store, order(store, "m-a"))
    ending = store.pairs.end(first.pair)
    assert ending is not None
    assert store.pairs.held_by("m-a") is None
    assert taken(store, order(store, "m-b")).id != first.id
    store.pairs.ended(ending)
    store.pairs.ended(ending)
    assert first.pair.id not in {one.id for one in store.pairs.of("shop")}
    found = store.pairs.find(first.pair.id)
    assert found is not None
    assert found.state is PairState.ENDED


def test_a_pair_in_which_somebody_came_since_is_not_ended(store: StateStore) -> None:
    (first,) = several(store, 1, lanes=2)
    read = first.pair
    taken(store, order(store, "m-x", lanes=2))
    assert store.pairs.end(read) is None
    assert states(store) == [PairState.TAKEN]


def test_what_was_never_spoken_to_has_served_nobody(store: StateStore) -> None:
    first = taken(store, order(store, "m-a"))
    assert store.pairs.leave(first)
    assert taken(store, order(store, "m-b")).pair.served == 0


def test_what_is_too_old_serves_nobody_any_more(
    store: StateStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = taken(store, order(store, "m-a"))
    store.pairs.give_back(first, {})
    monkeypatch.setattr(pairs, "LIFETIME", timedelta(0))
    assert taken(store, order(store, "m-b")).id != first.id


def test_one_at_a_time_boots(store: StateStore) -> None:
    first, second, third = several(store, 3, lanes=3)
    with ThreadPoolExecutor(3) as pool:
        said = list(pool.map(store.pairs.begin_boot, (first, second, third)))
    assert sorted(said).count("") == 1
    turn = (first, second, third)[said.index("")]
    others = [one for one in (first, second, third) if one is not turn]
    assert store.pairs.begin_boot(turn) == ""
    for one in others:
        store.pairs.end_boot(one)
        assert store.pairs.begin_boot(one) == turn.lane.migration_id
    store.pairs.end_boot(turn)
    assert store.pairs.begin_boot(others[0]) == ""


@pytest.mark.parametrize("how", ["dies", "leaves", "gives back"])
def test_the_turn_of_one_that_is_gone_passes_on(store: StateStore, how: str) -> None:
    first, second = several(store, 2, lanes=2)
    assert store.pairs.begin_boot(first) == ""
    if how == "leaves":
        store.pairs.leave(first)
    elif how == "gives back":
        store.pairs.give_back(first, {})
    assert store.pairs.begin_boot(second, over="m-0" if how == "dies" else "") == ""
    assert store.pairs.begin_boot(first) == "m-1" if how == "dies" else "m-0"


def test_an_instance_is_of_no_use_when_all_find_so(store: StateStore) -> None:
    first, second, third = several(store, 3, lanes=4)
    assert not store.pairs.condemn(first, "s-1")
    assert not store.pairs.condemn(second, "s-1")
    assert not store.pairs.condemn(third, "s-2")
    store.pairs.leave(third)
    assert store.pairs.condemn(first, "s-1")
    # Whoever comes has found nothing yet.
    taken(store, order(store, "m-x", lanes=4))
    assert not store.pairs.condemn(first, "s-1")


def test_what_one_has_found_out_all_know(store: StateStore) -> None:
    first, second = several(store, 2, lanes=2)
    store.pairs.remember(first, source_open=True)
    store.pairs.give_back(second, {"direction": "x"})
    found = store.pairs.find(first.pair.id)
    assert found is not None
    assert found.facts == {"source_open": True, "direction": "x"}
