"""Two controllers and one migration: one drives it, and the agents know which."""

import json
import os
import signal
import sqlite3
import subprocess
import time
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

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
from tests.postgres import PostgresServer

__all__ = ["clouds", "ferry"]

pytestmark = pytest.mark.timeout(240)


def test_of_two_that_resume_at_once_one_wins(ferry: Ferry) -> None:
    source_id = ferry.clouds.east.make_volume("data", 1, fill(data_mib=40))
    process = ferry.start("migrate", "data", "--from", "east", "--to", "west", *SLOW)
    found = ferry.wait_until(process, copying)
    process.kill()
    process.communicate()

    both = [ferry.start("resume", found["id"], "-o", "json") for _ in range(2)]
    ended = [(*one.communicate(timeout=200), one.returncode) for one in both]

    (won, lost) = sorted(ended, key=lambda end: end[2])
    assert (won[2], lost[2]) == (0, 13), ended
    assert json.loads(lost[0])["error"]["reason"] == "MIGRATION_BUSY"
    result = json.loads(won[0])
    assert (result["epoch"], result["verified"]) == (2, True)
    assert_equal(ferry, source_id, result["destination_volume_id"])
    assert only_volumes(ferry)


def test_a_controller_that_was_taken_over_touches_nothing_any_more(
    ferry: Ferry, tmp_path: Path
) -> None:
    """It was stopped for longer than its lease, goes on, and finds itself refused."""
    source_id = ferry.clouds.east.make_volume("data", 1, fill(data_mib=60))
    old = ferry.start("migrate", "data", "--from", "east", "--to", "west", *SLOW)
    found = ferry.wait_until(old, copying)
    try:
        with closing(sqlite3.connect(tmp_path / "state" / "state.db", timeout=1)) as database:
            stop_between_writes(old, database)
            database.execute("UPDATE blockferry_leases SET expires_at = 0")
            database.commit()
            new = ferry.start("resume", found["id"], "-o", "json")
            query = "SELECT * FROM blockferry_steps WHERE epoch = 2 AND name = 'probe'"
            ferry.wait_until(new, lambda _: database.execute(query).fetchone() is not None)
    finally:
        os.kill(old.pid, signal.SIGCONT)
    _, told = old.communicate(timeout=100)

    assert old.returncode == 13, told
    assert "another controller" in told
    assert "removed" not in told
    stdout, stderr = new.communicate(timeout=200)
    assert new.returncode == 0, stderr
    result = json.loads(stdout)
    assert (result["epoch"], result["verified"]) == (2, True)
    assert ferry.newest()["state"] == "SUCCEEDED"
    assert_equal(ferry, source_id, result["destination_volume_id"])
    assert only_volumes(ferry)


def test_a_host_without_the_keys_takes_over_with_a_new_pair(
    ferry: Ferry, tmp_path: Path, postgres_server: PostgresServer
) -> None:
    """One PostgreSQL and two hosts, each with a directory of its own for keys."""
    source_id = ferry.clouds.east.make_volume("data", 1, fill(data_mib=40))
    shared = {**ferry.environment, "BLOCKFERRY_STATE": postgres_server.new_database()}
    one, other = (
        replace(ferry, environment={**shared, "XDG_STATE_HOME": str(tmp_path / name)})
        for name in ("one", "other")
    )
    process = one.start("migrate", "data", "--from", "east", "--to", "west", *SLOW)
    found = one.wait_until(process, copying)
    process.kill()
    process.communicate()

    begun_at = time.monotonic()
    done = other.run("resume", found["id"], "-o", "json")

    assert done.returncode == 0, done.stderr
    assert "keys of earlier attempts are on another host" in done.stderr
    # Without that it waits two minutes for agents that will never trust it.
    assert time.monotonic() - begun_at < 90
    result = json.loads(done.stdout)
    assert (result["verified"], result["epoch"]) == (True, 2)
    assert result["resumed_from_bytes"] > 0
    assert_equal(ferry, source_id, result["destination_volume_id"])
    assert only_volumes(ferry)
    assert not keys(tmp_path / "other")
    # The first host's are worth nothing any more, and its `cleanup` destroys them.
    assert len(keys(tmp_path / "one")) == 1
    cleaned = one.run("cleanup")
    assert cleaned.returncode == 0, cleaned.stderr
    assert not keys(tmp_path / "one")


def stop_between_writes(process: "subprocess.Popen[str]", database: sqlite3.Connection) -> None:
    """Stop `process`, and begin a transaction of our own.

    One that is stopped in the middle of a write would keep everybody else from writing.
    """
    for _ in range(100):
        os.kill(process.pid, signal.SIGSTOP)
        try:
            database.execute("BEGIN IMMEDIATE")
            return
        except sqlite3.OperationalError:
            os.kill(process.pid, signal.SIGCONT)
            time.sleep(0.01)
    raise TimeoutError("it always writes")


def keys(home: Path) -> list[Path]:
    """Files of keys of the host with that state directory."""
    return [path for path in home.rglob("*") if path.is_file() and b"PRIVATE" in path.read_bytes()]
