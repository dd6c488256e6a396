"""A process that is cut off in the middle of a transaction holds up nobody for long."""

import time
from contextlib import closing
from pathlib import Path

import pytest

from blockferry_controller.engine import database
from blockferry_controller.engine.crew import AWAY
from blockferry_controller.engine.database import open_database
from blockferry_controller.engine.fleets import Fleets, touch
from tests.postgres import PostgresServer

SILENT_SECONDS = 1.0


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
