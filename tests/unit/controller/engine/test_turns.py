"""Threads of one process write to SQLite one after the other, and none is forgotten."""

import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from blockferry_controller.engine.turns import taking_turns


@pytest.fixture
def connect(tmp_path: Path) -> Iterator[Callable[[], sqlite3.Connection]]:
    """Connections that take turns; whoever finds the database locked fails at once."""
    factory = taking_turns(5.0)
    made: list[sqlite3.Connection] = []

    def connect() -> sqlite3.Connection:
        connection = sqlite3.connect(
            tmp_path / "state.db", timeout=0, factory=factory, check_same_thread=False,
            isolation_level="IMMEDIATE",
        )  # fmt: skip
        connection.execute("PRAGMA journal_mode=WAL")
        made.append(connection)
        return connection

    with closing(connect()) as first:
        first.execute("CREATE TABLE t (n INTEGER PRIMARY KEY)")
        first.commit()
    yield connect
    for connection in made:
        connection.close()


def count(connection: sqlite3.Connection) -> int:
    found: int = connection.cursor().execute("SELECT count(*) FROM t").fetchone()[0]
    return found


def test_many_threads_write_without_finding_it_locked(
    connect: Callable[[], sqlite3.Connection],
) -> None:
    errors: list[Exception] = []

    def write() -> None:
        connection = connect()
        try:
            for _ in range(20):
                connection.cursor().execute("INSERT INTO t DEFAULT VALUES")
                connection.commit()
        except sqlite3.Error as error:
            errors.append(error)

    threads = [threading.Thread(target=write) for _ in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert not errors
    assert count(connect()) == 240


def test_the_turn_lasts_as_long_as_the_transaction(
    connect: Callable[[], sqlite3.Connection],
) -> None:
    one, other = connect(), connect()
    one.cursor().execute("INSERT INTO t DEFAULT VALUES")
    began = threading.Event()

    def write() -> None:
        began.set()
        other.cursor().executemany("INSERT INTO t VALUES (?)", [(7,), (8,)])
        other.commit()

    thread = threading.Thread(target=write)
    thread.start()
    assert began.wait(5)
    thread.join(0.2)
    assert thread.is_alive()
    assert count(one) == 1
    one.rollback()
    thread.join(5)
    assert not thread.is_alive()
    assert count(one) == 2


@pytest.mark.parametrize("end", ["rollback", "close"])
def test_a_statement_that_fails_and_a_connection_that_closes_give_the_turn_back(
    connect: Callable[[], sqlite3.Connection], end: str
) -> None:
    one, other = connect(), connect()
    with pytest.raises(sqlite3.Error):
        one.cursor().execute("INSERT INTO nowhere VALUES (1)")
    one.cursor().execute("INSERT INTO t DEFAULT VALUES")
    getattr(one, end)()
    other.cursor().execute("INSERT INTO t DEFAULT VALUES")
    other.commit()
    assert count(other) == 1


def test_reading_needs_no_turn(connect: Callable[[], sqlite3.Connection]) -> None:
    one, other = connect(), connect()
    one.cursor().execute("INSERT INTO t DEFAULT VALUES")
    assert count(other) == 0


def test_who_waits_too_long_hears_what_sqlite_would_have_said(tmp_path: Path) -> None:
    factory = taking_turns(0.1)
    path = tmp_path / "state.db"
    with (
        closing(sqlite3.connect(path, factory=factory, isolation_level="IMMEDIATE")) as one,
        closing(sqlite3.connect(path, factory=factory, isolation_level="IMMEDIATE")) as other,
    ):
        one.cursor().execute("CREATE TABLE t (n)")
        one.cursor().execute("INSERT INTO t VALUES (1)")
        start = time.monotonic()
        with pytest.raises(sqlite3.OperationalError, match="database is locked"):
            other.cursor().execute("INSERT INTO t VALUES (2)")
        assert time.monotonic() - start < 5
        one.rollback()
        other.cursor().execute("INSERT INTO t VALUES (2)")
        other.commit()
