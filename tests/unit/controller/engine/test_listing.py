"""Many rows: a page costs what the page is, and all pages are all rows, each once."""

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.dialects import sqlite

from blockferry_controller.engine import fleet_listing, fleet_notes, history, listing, outcomes
from blockferry_controller.engine.fleet_records import ItemState
from blockferry_controller.engine.state import StateStore
from blockferry_controller.engine.tables import INDEXES
from tests.unit.controller.engine.crowd import BEGUN, crowd, name

COUNT = 2 * listing.PAGE + 7
AFTER = (BEGUN, name(5))


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StateStore]:
    store = crowd(f"sqlite:///{tmp_path_factory.mktemp('crowd')}/state.db", COUNT)
    yield store
    store.close()


QUERIES: dict[str, tuple[sa.Select[Any], str]] = {
    "list": (listing.newest(), "migrations_age"),
    "list, all": (listing.oldest(AFTER), "migrations_age"),
    "show, fleet": (fleet_listing.volumes("shop", ItemState.FAILED), "items_state"),
    "show, all": (fleet_listing.in_order("shop", 7), ""),
    "report": (outcomes.outcomes("shop", 7), ""),
    "show, counts": (fleet_notes.counts("shop", None), "items_state"),
    "a wave's counts": (fleet_notes.counts("shop", "w1"), "items_wave"),
    "a wave's end": (fleet_notes.still_open("shop", "w1"), "items_wave"),
    "history": (history.newest(before=(BEGUN, 5)), "history_at"),
    "history, since": (history.newest(since=BEGUN), "history_at"),
    "history, fleet": (history.newest("shop"), "history_fleet"),
    "history, fleet, since": (history.newest("shop", since=BEGUN), "history_fleet"),
    "history, in order": (history.after_number("shop", 7, ()), "history_order"),
}
ONE: dict[str, tuple[sa.Select[Any], str]] = {
    # Of one migration there are few rows: they may be sorted.
    "history, migration": (history.newest(migration=name(1)), "history_one"),
}


NARROWER = (
    "show, all",
    "report",
    "show, fleet",
    "a wave's counts",
    "a wave's end",
    "show, counts",
    "history, in order",
)
"""Without theirs another index serves, which has more rows than are answered, or wider ones."""


def steps(connection: sa.Connection, query: sa.Select[Any]) -> list[str]:
    written = query.limit(50).compile(
        dialect=sqlite.dialect(), compile_kwargs={"literal_binds": True}
    )
    return [row[3] for row in connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {written}")]


def reads_more_than_it_answers(plan: list[str]) -> list[str]:
    """Steps that read a whole table, or sort."""
    whole = [step for step in plan if step.startswith("SCAN") and " USING " not in step]
    return whole + [step for step in plan if "TEMP B-TREE" in step]


@pytest.mark.parametrize("query", QUERIES)
def test_a_page_is_read_from_an_index_in_its_order(store: StateStore, query: str) -> None:
    with store.database.connect() as connection:
        plan = steps(connection, QUERIES[query][0])
    assert not reads_more_than_it_answers(plan), plan
    own = QUERIES[query][1]
    # Without a name: the primary key's.
    assert f"INDEX {'ix_blockferry_' if own else 'sqlite_autoindex_'}{own}" in plan[0]


def test_of_one_migration_only_its_own_is_read(store: StateStore) -> None:
    query, index = ONE["history, migration"]
    with store.database.connect() as connection:
        assert (
            f"SEARCH blockferry_history USING INDEX ix_blockferry_{index}"
            in (steps(connection, query)[0])
        )


@pytest.mark.parametrize("query", sorted(set(QUERIES) - set(NARROWER)))
def test_and_without_its_index_it_is_not(tmp_path: Path, query: str) -> None:
    store = crowd(f"sqlite:///{tmp_path}/state.db", 3)
    with store.database.begin() as connection:
        next(one for one in INDEXES if str(one.name).endswith(QUERIES[query][1])).drop(connection)
        plan = steps(connection, QUERIES[query][0])
    store.close()
    assert reads_more_than_it_answers(plan), plan


def test_the_beginning_of_an_id_is_searched_for(store: StateStore) -> None:
    with store.database.connect() as connection:
        plan = steps(connection, listing.beginning(connection, "261120-00"))
        found = listing.named(connection, name(3)[:-1])
    assert plan[0].startswith("SEARCH blockferry_migrations USING")
    assert [row["id"] for row in found] == [name(0), name(1), name(2)]


def test_all_pages_are_all_rows_each_once(store: StateStore) -> None:
    expected = [name(at) for at in range(COUNT)]
    assert store.listing.count() == COUNT
    assert [one.id for one in store.listing.migrations()] == expected
    assert [one.migration_id for one in store.fleet_listing.all_volumes("shop")] == expected
    assert [one.migration_id for one in store.outcomes.of("shop")] == expected
    assert [one.id for one in store.listing.newest(3)] == expected[-3:]
    told = [one.migration for one in store.history.newest(fleet="shop") if one.migration]
    assert told == expected[::-1]


def test_fleets_cost_two_queries_however_many(tmp_path: Path) -> None:
    store = StateStore.open(f"sqlite:///{tmp_path}/state.db")
    for number in range(30):
        store.fleets.create(f"f{number:02d}", ("east", "west"), {"fleet": "f"}, {}, [])
    asked: list[str] = []
    sa.event.listen(
        store.database, "before_cursor_execute", lambda *given: asked.append(str(given[2]))
    )
    assert [one.id for one in store.fleet_listing.newest(3)] == ["f27", "f28", "f29"]
    assert len(store.fleet_listing.newest()) == 30
    assert len(asked) == 2 * 2
    assert not any("document" in query for query in asked)
    store.close()


def test_rows_of_the_same_moment_are_not_lost_between_pages(tmp_path: Path) -> None:
    store = crowd(f"sqlite:///{tmp_path}/state.db", COUNT)
    with store.database.begin() as connection:
        connection.exec_driver_sql(
            "UPDATE blockferry_migrations SET created_at='2026-11-20 00:00:00.000000'"
        )
        connection.exec_driver_sql("UPDATE blockferry_history SET at='2026-11-20 00:00:00.000000'")
    assert len({one.id for one in store.listing.migrations()}) == COUNT
    assert len({one.id for one in store.history.newest(fleet="shop")}) == COUNT + 1
    store.close()


def test_what_people_look_for_comes_first(store: StateStore) -> None:
    found = store.fleet_listing.volumes("shop", COUNT // 10 + 5)
    failed = [one for one in found if one.state is ItemState.FAILED]
    assert found[: len(failed)] == failed
    assert {one.state for one in found} == {ItemState.FAILED, ItemState.WAITING}


def test_history_since(store: StateStore) -> None:
    since = BEGUN + timedelta(seconds=COUNT - 3)
    found = store.history.newest(fleet="shop", since=since)
    assert [one.migration for one in found if one.migration] == [
        name(COUNT - 1), name(COUNT - 2), name(COUNT - 3),
    ]  # fmt: skip
