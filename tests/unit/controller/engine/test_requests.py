import pytest

from blockferry_controller.engine.lease import Holder
from blockferry_controller.engine.requests import Value, Want
from blockferry_controller.engine.state import StateStore
from blockferry_controller.spec import Endpoint, Kind, Spec

ALL: list[tuple[Want, Value]] = [
    (Want.CANCELLED, True),
    (Want.PAUSED, True),
    (Want.LIMIT, 8 << 20),
]


@pytest.fixture(autouse=True)
def one(store: StateStore) -> None:
    store.create("m-1", Spec(Kind.COPY, Endpoint("a", "x"), Endpoint("b")), "a/x", "b/x")


def test_nothing_is_wanted_at_first(store: StateStore) -> None:
    wants = store.requests.read("m-1")
    assert (wants.cancelled, wants.paused, wants.limit_bytes_per_second) == (False, False, None)


def test_what_is_wanted_is_read_by_whoever_asks(store: StateStore) -> None:
    for want, value in ALL:
        store.requests.ask("m-1", want, value)
    for wants in (store.requests.read("m-1"), store.get("m-1").wants):
        assert (wants.cancelled, wants.paused) == (True, True)
        assert wants.limit_bytes_per_second == 8 << 20


@pytest.mark.parametrize(("want", "value"), ALL, ids=str)
def test_asking_twice_is_asking_once(store: StateStore, want: Want, value: Value) -> None:
    first = store.requests.ask("m-1", want, value)
    store.requests.answer("m-1", first, "done")
    again = store.requests.ask("m-1", want, value)
    assert (again.asked_at, again.answer) == (first.asked_at, "done")
    assert again.answered_at is not None


def test_an_answer_belongs_to_the_value_it_was_read_with(store: StateStore) -> None:
    old = store.requests.ask("m-1", Want.LIMIT, 1)
    store.requests.ask("m-1", Want.LIMIT, 2)
    store.requests.answer("m-1", old)
    now = store.requests.read("m-1").by_want[Want.LIMIT]
    assert (now.value, now.answered_at) == (2, None)


def test_a_new_attempt_is_neither_cancelled_nor_paused_and_keeps_its_limit(
    store: StateStore,
) -> None:
    for want, value in ALL:
        store.requests.ask("m-1", want, value)
    store.acquire("m-1", Holder.of_this_process())
    wants = store.requests.read("m-1")
    assert (wants.cancelled, wants.paused) == (False, False)
    assert wants.limit_bytes_per_second == 8 << 20


def test_who_may_not_take_over_leaves_the_requests_alone(store: StateStore) -> None:
    store.acquire("m-1", Holder("elsewhere-00000000", 1, "1", "first"))
    store.requests.ask("m-1", Want.PAUSED, value=True)
    with pytest.raises(Exception, match="driven by another"):
        store.acquire("m-1", Holder.of_this_process())
    assert store.requests.read("m-1").paused
