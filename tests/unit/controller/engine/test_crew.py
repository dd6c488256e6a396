"""Who moves what: an item is one process's at a time, and only that one writes its end."""

from concurrent.futures import ThreadPoolExecutor

import pytest

from blockferry.errors import BusyError
from blockferry_controller.engine import lease
from blockferry_controller.engine.fleet_records import ItemRecord, ItemState
from blockferry_controller.engine.lease import Holder
from blockferry_controller.engine.state import StateStore
from tests.unit.controller.engine.aging import age

DRIVER = Holder("driver-00000000", 1, "1", "n")


def of_host(name: str) -> Holder:
    """A process of another host: nobody here can say that it is dead."""
    return Holder(f"{name}-00000000", 1, "1", "n")


@pytest.fixture(autouse=True)
def shop(store: StateStore) -> None:
    """A fleet of three, driven, two of them offered."""
    items = [
        ItemRecord(at, f"v-{at}", f"v{at}", 1, "all", ItemState.WAITING, {}, migration_id=f"m-{at}")
        for at in range(3)
    ]
    store.fleets.create("shop", ("east", "west"), {}, {}, items)
    store.fleets.acquire("shop", DRIVER)
    for at in (0, 1):
        assert store.fleets.change("shop", DRIVER, at, ItemState.WAITING, state=ItemState.RUNNING)


def holders(store: StateStore) -> list[str]:
    return [item.holder.partition("-")[0] for item in store.fleets.items("shop")]


def test_of_many_that_take_one_item_one_gets_it(store: StateStore) -> None:
    crew = [of_host(f"w{at}") for at in range(8)]
    for one in crew:
        store.crew.join(one, room=1)
    with ThreadPoolExecutor(8) as pool:
        took = list(pool.map(lambda one: store.crew.take("shop", 0, one), crew))
    assert took.count(True) == 1
    assert holders(store) == [f"w{took.index(True)}", "", ""]


def test_only_what_is_offered_can_be_taken_and_only_by_one_of_the_crew(store: StateStore) -> None:
    one = of_host("one")
    assert not store.crew.take("shop", 0, one)
    store.crew.join(one, room=1)
    assert not store.crew.take("shop", 2, one)
    assert [item.migration_id for item in store.crew.taken()] == ["m-0", "m-1"]
    assert store.crew.take("shop", 0, one)
    assert not store.crew.take("shop", 0, one)


def test_who_was_cut_off_takes_and_writes_nothing_any_more(store: StateStore) -> None:
    cut, other = of_host("cut"), of_host("other")
    store.crew.join(cut, room=2)
    assert store.crew.take("shop", 0, cut)
    age(store, lease.LEASE_SECONDS + 1)
    assert not store.crew.renew(cut)
    assert not store.crew.take("shop", 1, cut)
    store.crew.join(other, room=2)
    assert store.crew.alive() == [str(other)]
    assert store.crew.offer_what_the_dead_held() == 1
    assert store.crew.take("shop", 0, other)
    assert not store.crew.give_back("shop", 0, cut, state=ItemState.FAILED, why="X")
    assert store.crew.give_back("shop", 0, other, state=ItemState.SUCCEEDED)
    assert store.fleets.item("shop", 0).state is ItemState.SUCCEEDED
    assert store.crew.offer_what_the_dead_held() == 0


def test_a_dead_process_of_this_host_is_known_at_once(store: StateStore) -> None:
    me = Holder.of_this_process()
    dead = Holder(me.host, me.pid, "1", "past")
    store.crew.join(dead, room=1)
    store.crew.join(me, room=1)
    assert store.crew.take("shop", 1, dead)
    assert store.crew.alive() == [str(me)]
    assert store.crew.offer_what_the_dead_held() == 1
    assert store.crew.take("shop", 1, me)


def test_who_leaves_gives_everything_back(store: StateStore) -> None:
    one = of_host("one")
    store.crew.join(one, room=2)
    store.crew.take("shop", 0, one)
    store.crew.leave(one)
    assert holders(store) == ["", "", ""]
    assert store.crew.alive() == []
    assert not store.crew.renew(one)


def test_renewing_renews_the_fleets_that_it_drives(store: StateStore) -> None:
    store.crew.join(DRIVER, room=1)
    age(store, lease.LEASE_SECONDS - 5)
    assert store.crew.renew(DRIVER)
    age(store, lease.LEASE_SECONDS - 5)
    assert store.fleets.open_fleets() == {"shop": True}
    age(store, 10)
    assert store.fleets.open_fleets() == {"shop": False}


def test_who_drives_no_more_decides_no_more(store: StateStore) -> None:
    store.fleets.release("shop", DRIVER)
    store.fleets.acquire("shop", of_host("next"))
    for write in (
        lambda: store.fleets.change("shop", DRIVER, 2, ItemState.WAITING, why="X"),
        lambda: store.fleets.explain("shop", DRIVER, {2: ("X", "x")}),
        lambda: store.fleets.stop("shop", DRIVER, "X", "x"),
    ):
        with pytest.raises(BusyError) as raised:
            write()
        assert raised.value.reason == "FLEET_LOST"
    assert {item.why for item in store.fleets.items("shop")} == {""}


def test_stopping_takes_back_what_is_offered_and_tells_who_holds(store: StateStore) -> None:
    one = of_host("one")
    store.crew.join(one, room=1)
    store.crew.take("shop", 0, one)
    store.fleets.stop("shop", DRIVER, "PAUSED", "paused")
    items = store.fleets.items("shop")
    assert [item.state.value for item in items] == ["RUNNING", "WAITING", "WAITING"]
    assert [item.why for item in items] == ["PAUSED", "PAUSED", ""]
    assert [one.why for one in store.crew.taken()] == ["PAUSED"]


def test_only_what_has_changed_is_read_again(store: StateStore) -> None:
    seen = store.fleets.version("shop")
    assert store.fleets.items("shop", since=seen) == []
    store.fleets.put("shop", [2], ItemState.SKIPPED, (ItemState.WAITING,))
    assert [item.position for item in store.fleets.items("shop", since=seen)] == [2]
    # Not in that state any more: nothing is changed.
    assert not store.fleets.change("shop", DRIVER, 2, ItemState.WAITING, state=ItemState.RUNNING)
    assert store.fleets.item("shop", 2).state is ItemState.SKIPPED


def test_what_changes_nothing_wakes_nobody(store: StateStore) -> None:
    one, other = of_host("one"), of_host("other")
    for process in (one, other):
        store.crew.join(process, room=2)
    before = store.fleets.version("shop")
    assert store.crew.take("shop", 0, one)
    taken = store.fleets.version("shop")
    assert taken > before
    assert not store.crew.take("shop", 0, other)
    assert not store.crew.give_back("shop", 0, other, state=ItemState.FAILED)
    assert not store.fleets.change("shop", DRIVER, 2, ItemState.FAILED, why="X")
    assert store.fleets.put("shop", [0, 1], ItemState.SKIPPED, [ItemState.WAITING]) == 0
    assert store.fleets.version("shop") == taken
    assert store.fleets.item("shop", 0).holder == str(one)
