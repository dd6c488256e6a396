"""The state database goes away while a volume is on its way, for a moment or for longer."""

import json
import random
import socket
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing, suppress
from dataclasses import replace
from pathlib import Path

import pytest
import sqlalchemy as sa
from sqlalchemy.exc import OperationalError

from blockferry_controller.__main__ import main
from blockferry_controller.engine import database
from blockferry_controller.engine.away import explain
from blockferry_controller.engine.state import StateStore
from blockferry_controller.spec import Endpoint, Kind, Spec
from tests.integration.test_migrate import (
    SLOW,
    Ferry,
    assert_equal,
    clouds,
    copying,
    ferry,
    fill,
    only_volumes,
)
from tests.postgres import PostgresServer, postgres

__all__ = ["clouds", "ferry"]

pytestmark = pytest.mark.timeout(240)


@pytest.fixture
def server() -> Iterator[PostgresServer]:
    """Not the other tests' one: it is stopped. By TCP, as that of several hosts."""
    with postgres(free_port()) as server:
        yield server


def free_port() -> int:
    """One that no client is given by chance while the server is away."""
    for port in random.sample(range(20_000, 30_000), 100):
        with suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return port
    raise RuntimeError("none of 100 ports is free")


@pytest.fixture
def shared(ferry: Ferry, server: PostgresServer, tmp_path: Path) -> Ferry:
    """The command line on that server."""
    ours = {"BLOCKFERRY_STATE": server.new_database(), "XDG_STATE_HOME": str(tmp_path / "home")}
    return replace(ferry, environment={**ferry.environment, **ours})


def test_a_copy_outlives_a_restart_of_its_database(shared: Ferry, server: PostgresServer) -> None:
    source_id = shared.clouds.east.make_volume("data", 1, fill(data_mib=40))
    process = shared.start("migrate", "data", "--from", "east", "--to", "west", "-o", "json", *SLOW)
    found = shared.wait_until(process, copying)
    server.stop()
    time.sleep(4)
    assert process.poll() is None
    server.start()

    stdout, stderr = process.communicate(timeout=200)
    assert process.returncode == 0, stderr
    result = json.loads(stdout)
    assert (result["id"], result["epoch"], result["verified"]) == (found["id"], 1, True)
    assert_equal(shared, source_id, result["destination_volume_id"])
    assert only_volumes(shared)


def test_one_whose_database_stays_away_is_resumed_where_it_was(
    shared: Ferry, server: PostgresServer
) -> None:
    source_id = shared.clouds.east.make_volume("data", 1, fill(data_mib=120))
    process = shared.start("migrate", "data", "--from", "east", "--to", "west", *SLOW)
    found = shared.wait_until(process, copying)
    server.stop()
    _, told = process.communicate(timeout=100)
    # Who could not renew its lease does not know whose the migration is.
    assert process.returncode == 13, told
    assert "defect" not in told
    assert "Traceback" not in told
    assert f"blockferry resume {found['id']}" in told
    listed = shared.run("list")
    assert listed.returncode == 16
    assert "cannot be opened" in listed.stderr
    server.start()

    done = shared.run("resume", found["id"], "-o", "json")
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert (result["epoch"], result["verified"]) == (2, True)
    assert result["resumed_from_bytes"] >= found["committed_bytes"]
    assert_equal(shared, source_id, result["destination_volume_id"])
    assert only_volumes(shared)


def test_a_file_that_another_has_locked_is_told_as_that(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(database, "BUSY_SECONDS", 0.2)
    monkeypatch.setenv("BLOCKFERRY_STATE", f"sqlite:///{tmp_path}/state.db")
    with closing(StateStore.open(f"sqlite:///{tmp_path}/state.db")) as store:
        store.create(
            "m-1", Spec(Kind.COPY, Endpoint("local", "a"), Endpoint("local", "b")), "a", "b"
        )
    with closing(sqlite3.connect(tmp_path / "state.db")) as other:
        other.execute("BEGIN IMMEDIATE")
        assert main(["cancel", "m-1"]) == 13
    told = capsys.readouterr().err
    assert "the state database was locked for too long" in told
    assert main(["cancel", "m-1"]) == 0


def test_what_is_told_of_a_database_is_no_statement_of_ours() -> None:
    """Those carry names, and whatever else is in a row."""
    statement = OperationalError("UPDATE rows SET a = 'secret'", {}, Exception("gone\nfar away"))
    assert explain(statement).message.count("gone") == 1
    assert "secret" not in explain(statement).message
    full = sa.exc.OperationalError("INSERT", {}, sqlite3.OperationalError("disk is full"))
    assert (explain(full).reason, explain(full).meaning.exit_code) == ("STATE_UNREACHABLE", 16)
