"""Several hosts, one of which has the wrong time: leases are as the database's clock says."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa

from blockferry.errors import BusyError
from blockferry_controller.engine import lease
from blockferry_controller.engine.lease import Holder, live_hosts
from blockferry_controller.engine.state import StateStore
from blockferry_controller.spec import Endpoint, Kind, Spec
from tests.postgres import PostgresServer
from tests.unit.controller.engine.aging import age

HOUR = 3600.0
RIGHT, WRONG = (Holder(f"{name}-00000000", 1, "1", "n") for name in ("right", "wrong"))


@pytest.fixture
def store(
    postgres_server: PostgresServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[StateStore]:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    store = StateStore.open(postgres_server.new_database())
    store.fleets.create("shop", ("east", "west"), {}, {}, [])
    store.create("m-1", Spec(Kind.MIGRATE, Endpoint("east", "v"), Endpoint("west")), "s", "d")
    yield store
    store.close()


@pytest.fixture(params=[HOUR, -HOUR], ids=["ahead", "behind"])
def as_wrong(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[[bool], None]]:
    """Be the host whose clock is an hour off, or the other one again."""
    true_time = time.time

    def switch(wrong: bool) -> None:
        off = request.param if wrong else 0.0
        monkeypatch.setattr("time.time", lambda: true_time() + off)

    yield switch
    switch(False)


def take_all(store: StateStore, who: Holder) -> None:
    store.acquire("m-1", who)
    store.fleets.acquire("shop", who)
    store.crew.join(who, room=1)
    assert store.deliveries.claim("shop", "page", str(who), 30)


def assert_held(store: StateStore, who: Holder, other: Holder) -> None:
    """As `other` sees it."""
    with pytest.raises(BusyError, match="driven by another process"):
        store.acquire("m-1", other)
    with pytest.raises(BusyError, match="driven by another process"):
        store.fleets.acquire("shop", other)
    assert store.driven("m-1")
    assert store.fleets.open_fleets() == {"shop": True}
    assert store.crew.alive() == [str(who)]
    assert not store.deliveries.claim("shop", "page", str(other), 30)
    assert live_hosts(store.database) == {who.host}


@pytest.mark.parametrize("wrong_takes", [True, False], ids=["wrong-takes", "wrong-looks"])
def test_a_lease_is_neither_lost_nor_stolen(
    store: StateStore, as_wrong: Callable[[bool], None], *, wrong_takes: bool
) -> None:
    who, other = (WRONG, RIGHT) if wrong_takes else (RIGHT, WRONG)
    as_wrong(wrong_takes)
    take_all(store, who)
    as_wrong(not wrong_takes)
    assert_held(store, who, other)
    as_wrong(wrong_takes)
    assert store.renew("m-1", who)
    assert store.crew.renew(who)
    as_wrong(not wrong_takes)
    assert_held(store, who, other)


def test_and_it_still_expires(store: StateStore, as_wrong: Callable[[bool], None]) -> None:
    as_wrong(True)
    take_all(store, WRONG)
    age(store, lease.LEASE_SECONDS + 1)
    assert not store.crew.renew(WRONG)
    as_wrong(False)
    take_all(store, RIGHT)
    as_wrong(True)
    assert_held(store, RIGHT, WRONG)


def test_a_transaction_that_waited_takes_the_time_of_its_writing(store: StateStore) -> None:
    with store.database.begin() as connection:
        first, later = (
            connection.exec_driver_sql("SELECT now(), pg_sleep(0.3)"),
            connection.execute(sa.select(lease.now(), sa.func.now())),
        )
        del first
        written, begun = later.one()
    assert written - begun.timestamp() >= 0.3
