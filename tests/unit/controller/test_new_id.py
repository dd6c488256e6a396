"""No two of a state have one id: what is drawn may be drawn twice."""

import itertools
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from blockferry_controller.engine.fleet_records import ItemRecord, ItemState
from blockferry_controller.engine.lease import Holder
from blockferry_controller.engine.pairs import Order
from blockferry_controller.engine.state import StateStore
from blockferry_controller.migration.service import Migrations
from tests.fakes.ferry import KeysOfAll
from tests.unit.controller.fleet.test_worker import SPEC


@pytest.fixture
def store(tmp_path: Path) -> Iterator[StateStore]:
    store = StateStore.open(f"sqlite:///{tmp_path}/state.db")
    yield store
    store.close()


@pytest.fixture
def migrations(store: StateStore, monkeypatch: pytest.MonkeyPatch) -> Migrations:
    """Each letter is drawn sixteen times, so each id twice."""
    letters = (letter for letter in itertools.cycle("abcdefgh") for _ in range(2 * 8))
    monkeypatch.setattr(secrets, "choice", lambda _: next(letters))

    nothing: Any = None
    return Migrations(store, nothing, nothing, nothing)


def letters(own: str) -> str:
    return own.rpartition("-")[2]


def test_that_of_a_migration_is_not_drawn_again(store: StateStore, migrations: Migrations) -> None:
    first = migrations.create(SPEC).id
    assert letters(first) == "aaaaaaaa"
    assert letters(migrations.create(SPEC).id) == "bbbbbbbb"
    assert len({one.id for one in store.listing.migrations()}) == 2


def test_nor_that_which_a_volume_of_a_fleet_is_to_have(
    store: StateStore, migrations: Migrations
) -> None:
    claimed = migrations.new_id()
    item = ItemRecord(0, "v", "v", 1, "all", ItemState.WAITING, {}, migration_id=claimed)
    store.fleets.create("shop", ("east", "west"), {}, {}, [item])
    assert letters(migrations.new_id()) == "bbbbbbbb"


def test_nor_that_of_a_pair(store: StateStore, migrations: Migrations) -> None:
    own = migrations.create(SPEC).id
    migrations.new_id()
    pair = migrations.new_id("pair-")
    holder = Holder.of_this_process()
    order = Order(own, store.acquire(own, holder), "shop", "east", "west", "", 1)
    assert store.pairs.take(order, lambda: pair, KeysOfAll())
    assert (pair.startswith("pair-"), letters(pair)) == (True, "bbbbbbbb")
    assert letters(migrations.new_id("pair-")) == "cccccccc"
