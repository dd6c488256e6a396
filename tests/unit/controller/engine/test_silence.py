"""A process that is cut off in the middle of a transaction holds up nobody for long."""

import threading
import time
from contextlib import closing, suppress
from pathlib import Path

import pytest
import sqlalchemy as sa

from blockferry_controller.engine import database
from blockferry_controller.engine.away import AWAY
from blockferry_controller.engine.database import open_database
from blockferry_controller.engine.fleets import Fleets, touch
from tests.cut_line import cut_line
from tests.postgres import PostgresServer

SILENT_SECONDS = 1.0
LOCK_SECONDS = 0.5
IN_LINE = 8


def test_who_falls_silent_in_a_transaction_lets_go(
    tmp_path: Path, postgres_server: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database, "SILENT_SECONDS", SILENT_SECONDS)
    url = postgres_server.new_database()
    cut_off, _ = open_database(url, tmp_path)
    other, _ = open_database(url, tmp_path)
    Fleets(cut_off).create("shop", ("east", "west"), {}, {}, [])
    with closing(cut_off.connect()) as connection:
        connection.begin()
        touch(connection, "shop")
        start = time.monotonic()
        Fleets(other).want("shop", "paused", True)
        assert SILENT_SECONDS / 2 < time.monotonic() - start < 20
        with pytest.raises(AWAY):
            touch(connection, "shop")
        connection.invalidate()
    assert Fleets(other).wants("shop").paused
    for engine in (cut_off, other):
        engine.dispose()


def test_a_line_of_those_that_were_cut_off_goes_at_once(
    tmp_path: Path, postgres_server: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else each is given the lock in turn, and holds it until its silence is noticed."""
    monkeypatch.setattr(database, "SILENT_SECONDS", SILENT_SECONDS)
    monkeypatch.setattr(database, "LOCK_SECONDS", LOCK_SECONDS)
    url = postgres_server.new_database()
    near, _ = open_database(url, tmp_path)
    Fleets(near).create("shop", ("east", "west"), {}, {}, [])
    with cut_line(postgres_server.directory) as (line, place):
        far, _ = open_database(url.replace(str(postgres_server.directory), str(place)), tmp_path)

        def ask(number: int) -> None:
            with suppress(*AWAY):
                Fleets(far).want("shop", f"approved:{number}", value=True)

        threads = [
            threading.Thread(target=ask, args=(number,), daemon=True) for number in range(IN_LINE)
        ]
        with near.begin() as holder:
            touch(holder, "shop")
            for thread in threads:
                thread.start()
            _until_in_line(near, IN_LINE)
            line.cut()
        start = time.monotonic()
        Fleets(near).want("shop", "paused", value=True)
        assert time.monotonic() - start < SILENT_SECONDS * IN_LINE / 2
        line.mend()
        for thread in threads:
            thread.join(20)
        far.dispose()
    assert Fleets(near).wants("shop").paused
    near.dispose()


def test_who_lives_waits_for_longer_than_a_statement_may(
    tmp_path: Path, postgres_server: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database, "LOCK_SECONDS", LOCK_SECONDS)
    engine, _ = open_database(postgres_server.new_database(), tmp_path)
    Fleets(engine).create("shop", ("east", "west"), {}, {}, [])
    with engine.begin() as holder:
        touch(holder, "shop")
        waiting = threading.Thread(
            target=Fleets(engine).want, args=("shop", "paused", True), daemon=True
        )
        waiting.start()
        waiting.join(3 * LOCK_SECONDS)
        assert waiting.is_alive()
    waiting.join(20)
    assert Fleets(engine).wants("shop").paused
    engine.dispose()


def _until_in_line(engine: sa.Engine, count: int) -> None:
    """Wait until so many statements wait for locks."""
    waiting = sa.text(
        "SELECT count(*) FROM pg_stat_activity "
        "WHERE datname = current_database() AND wait_event_type = 'Lock'"
    )
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        with engine.connect() as connection:
            if connection.scalar(waiting) >= count:
                return
        time.sleep(0.02)
    raise AssertionError(f"never were {count} in line")
