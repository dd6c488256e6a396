"""A running copy, paused, throttled, watched and woken by other processes."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

from blockferry_controller.engine.records import MigrationRecord
from blockferry_controller.engine.state import StateStore

pytestmark = pytest.mark.timeout(180)
"""Each starts a process for every word; on a busy machine that takes seconds."""

MIB = 1 << 20
SIZE = 60 * MIB
EFFECT_SECONDS = 20.0
"""Until a word has its effect: about 1.2 s on an idle machine; the rest is for busy ones."""
STILL_SECONDS = 2.5
"""Longer than any commit, watch or poll takes."""

Run = Callable[..., Any]


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    kept = {name: text for name, text in os.environ.items() if not name.startswith("BLOCKFERRY_")}
    state = {"BLOCKFERRY_STATE": f"sqlite:///{tmp_path}/state/state.db"}
    return {**kept, **state, "XDG_CONFIG_HOME": str(tmp_path)}


@pytest.fixture
def run(environment: dict[str, str], tmp_path: Path) -> Run:
    def run(*arguments: object, code: int = 0) -> Any:
        done = subprocess.run(
            [sys.executable, "-m", "blockferry_controller", *map(str, arguments), "-o", "json"],
            cwd=tmp_path, env=environment, capture_output=True, text=True, check=False, timeout=90,
        )  # fmt: skip
        assert done.returncode == code, done.stderr
        return json.loads(done.stdout)

    return run


@contextmanager
def copying(
    environment: dict[str, str], tmp_path: Path, *options: str
) -> Iterator["subprocess.Popen[str]"]:
    """A copy that has committed something and would take half a minute."""
    (tmp_path / "src").write_bytes(random.Random(SIZE).randbytes(SIZE))
    command = [sys.executable, "-m", "blockferry_controller", "copy", "src", "dst", "-o", "json"]
    with subprocess.Popen(
        [*command, "--limit", "2MiB/s", *options],
        cwd=tmp_path, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        start_new_session=True,
    ) as process:  # fmt: skip
        assert process.stderr is not None
        for line in process.stderr:
            if line.startswith("{") and json.loads(line).get("committed_bytes", 0) > 0:
                break
        try:
            yield process
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)


def seen(tmp_path: Path) -> MigrationRecord:
    """The only migration, as the state database has it."""
    with closing(StateStore.open(f"sqlite:///{tmp_path}/state/state.db")) as store:
        return store.get(store.listing.newest(1)[0].id)


def held(run: Run, tmp_path: Path) -> tuple[str, int]:
    """Pause the migration; its id, and how far it is."""
    own = seen(tmp_path).id
    paused = run("pause", own)
    assert (paused["state"], paused["in_force"]) == ("PAUSED", True)
    deadline = time.monotonic() + EFFECT_SECONDS
    # What was under way is committed and written down within a second or two. What stands
    # still for longer than that stands.
    stands, since = -1, time.monotonic()
    while time.monotonic() - since < STILL_SECONDS:
        now = seen(tmp_path).progress
        if now.committed_bytes != stands or now.sent_bytes != now.committed_bytes:
            stands, since = now.committed_bytes, time.monotonic()
        assert since < deadline, now
        time.sleep(0.1)
    assert 0 < now.committed_bytes < SIZE
    return own, now.committed_bytes


def test_a_paused_copy_stands_still_goes_on_and_ends_equal(
    run: Run, environment: dict[str, str], tmp_path: Path
) -> None:
    with copying(environment, tmp_path) as process:
        own, committed = held(run, tmp_path)
        time.sleep(2.5)  # Longer than any commit, watch or poll takes.
        listed = run("list")[0]
        assert (listed["state"], listed["committed_bytes"]) == ("PAUSED", committed)
        assert run("set", own, "limit=none")["limit_bytes_per_second"] == 0
        assert seen(tmp_path).progress.committed_bytes == committed

        woken = run("resume", own)
        assert (woken["state"], woken["in_force"]) == ("RUNNING", True)
        out, err = process.communicate(timeout=90)

    result = json.loads(out)
    assert process.returncode == 0, err
    assert (result["state"], result["verified"]) == ("SUCCEEDED", True)
    assert (result["resumed_from_bytes"], result["sent_bytes"]) == (0, SIZE)
    assert result["epoch"] == 1, "nobody else took it over"
    assert (tmp_path / "dst").read_bytes() == (tmp_path / "src").read_bytes()
    notes = [json.loads(line) for line in err.splitlines() if '"note"' in line]
    assert [note["message"] for note in notes][-2:] == ["paused", "going on"]
    assert run("pause", own, code=12)["error"]["reason"] == "MIGRATION_ENDED"
    assert run("set", own, "limit=none", code=12)["error"]["reason"] == "MIGRATION_ENDED"


def test_killed_while_paused_it_is_interrupted_and_resumes_from_its_commit_point(
    run: Run, environment: dict[str, str], tmp_path: Path
) -> None:
    with copying(environment, tmp_path) as process:
        own, committed = held(run, tmp_path)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait(20)
    assert seen(tmp_path).state == "INTERRUPTED"
    assert run("pause", own, code=12)["error"]["reason"] == "NOT_RUNNING"
    assert run("set", own, "limit=1GiB/s")["in_force"] is False

    result = run("resume", own)
    assert result["state"] == "SUCCEEDED"
    assert result["resumed_from_bytes"] >= committed
    assert result["sent_bytes"] == SIZE - result["resumed_from_bytes"]
    report = run("report", own)
    assert report["resumes"] == 1
    [broken_off] = report["interruptions"]
    assert (broken_off["attempt"], broken_off["reason"]) == (1, "CONTROLLER_DIED")
    assert broken_off["committed_bytes"] == committed
    assert result["duration_seconds"] < (SIZE - committed) / (2 * MIB), "the new limit holds"
    assert (tmp_path / "dst").read_bytes() == (tmp_path / "src").read_bytes()


def test_interrupted_or_cancelled_while_paused_it_stops_in_order(
    run: Run, environment: dict[str, str], tmp_path: Path
) -> None:
    with copying(environment, tmp_path) as process:
        own, committed = held(run, tmp_path)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=90)
    assert process.returncode == 130, err
    assert json.loads(out)["state"] == "INTERRUPTED"
    assert seen(tmp_path).progress.committed_bytes == committed
    assert run("cancel", own)["state"] == "CANCELLED"
    assert not (tmp_path / "dst").exists()


def test_a_watcher_sees_it_all_and_exits_as_it_does(
    run: Run, environment: dict[str, str], tmp_path: Path
) -> None:
    command = [sys.executable, "-m", "blockferry_controller", "watch"]
    with copying(environment, tmp_path) as process:
        own = seen(tmp_path).id
        with subprocess.Popen(
            [*command, own[:8], "-o", "json"], cwd=tmp_path, env=environment,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        ) as watcher:  # fmt: skip
            held(run, tmp_path)
            assert run("cancel", own)["state"] == "CANCELLED"
            out, err = watcher.communicate(timeout=90)
        process.communicate(timeout=90)
    assert watcher.returncode == 130
    assert json.loads(out)["error"]["reason"] == "CANCELLED"
    told = [json.loads(line) for line in err.splitlines() if line.startswith("{")]
    assert [one["message"] for one in told if one["event"] == "note"] == ["paused"]
    assert [one["state"] for one in told if one["event"] == "ended"] == ["CANCELLED"]
    assert "copy" in [one["step"] for one in told if one["event"] == "step_started"]
    committed = [one["committed_bytes"] for one in told if one["event"] == "progress"]
    assert committed == sorted(committed)
    assert committed[-1] > 0
