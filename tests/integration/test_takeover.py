"""Two controllers and one migration: one drives it, and the agents know which."""

import json
import os
import signal
import sqlite3
from contextlib import closing
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
    os.kill(old.pid, signal.SIGSTOP)
    try:
        with closing(sqlite3.connect(tmp_path / "state" / "state.db", timeout=30)) as database:
            database.execute("UPDATE blockferry_leases SET expires_at = 0")
            database.commit()
            new = ferry.start("resume", found["id"], "-o", "json")
            query = "SELECT * FROM blockferry_steps WHERE epoch = 2 AND name = 'probe'"
            ferry.wait_until(new, lambda _: database.execute(query).fetchone() is not None)
    finally:
        os.kill(old.pid, signal.SIGCONT)
    _, told = old.communicate(timeout=100)

    assert old.returncode == 13, told
    assert "another controller has taken" in told
    assert "removed" not in told
    stdout, stderr = new.communicate(timeout=200)
    assert new.returncode == 0, stderr
    result = json.loads(stdout)
    assert (result["epoch"], result["verified"]) == (2, True)
    assert ferry.newest()["state"] == "SUCCEEDED"
    assert_equal(ferry, source_id, result["destination_volume_id"])
    assert only_volumes(ferry)
