"""`blockferry copy` as a person runs it: a process, two agents, files, exit codes."""

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

MIB = 1 << 20
CONTRACT = {
    "id", "state", "size_bytes", "data_bytes", "zero_bytes", "resumed_from_bytes", "sent_bytes",
    "wire_bytes", "duration_seconds", "verified", "digest",
}  # fmt: skip
Run = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """A state of its own, and none of the developer's options."""
    kept = {name: text for name, text in os.environ.items() if not name.startswith("BLOCKFERRY_")}
    state = {"BLOCKFERRY_STATE": f"sqlite:///{tmp_path}/state/state.db"}
    return {**kept, **state, "XDG_CONFIG_HOME": str(tmp_path)}


@pytest.fixture
def run(environment: dict[str, str], tmp_path: Path) -> Run:
    def run(*arguments: object) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            [sys.executable, "-m", "blockferry_controller", *map(str, arguments)],
            cwd=tmp_path, env=environment, capture_output=True, text=True, check=False, timeout=50,
        )  # fmt: skip

    return run


def noise(size_bytes: int) -> bytes:
    return random.Random(size_bytes).randbytes(size_bytes)


def processes_of(directory: Path) -> list[str]:
    """Where processes below the directory work: agents that somebody forgot."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cwd"):
        with contextlib.suppress(OSError):
            found.append(str(path.readlink()))
    return [place for place in found if f"{place}/".startswith(f"{directory}/")]


def events(stderr: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stderr.splitlines() if line.startswith("{")]


def test_a_copy_says_what_the_contract_says(run: Run, tmp_path: Path) -> None:
    source, copy = tmp_path / "a.img", tmp_path / "b.img"
    source.write_bytes(noise(3 * MIB) + bytes(2 * MIB + 7))

    done = run("copy", source, copy, "-o", "json")

    assert done.returncode == 0, done.stderr
    assert copy.read_bytes() == source.read_bytes()
    assert not [one for one in events(done.stderr) if one.get("level") == "warning"]
    result = json.loads(done.stdout)
    assert result.keys() >= CONTRACT
    assert (result["state"], result["verified"]) == ("SUCCEEDED", True)
    assert (result["size_bytes"], result["data_bytes"]) == (5 * MIB + 7, 3 * MIB)
    assert result["zero_bytes"] == 2 * MIB + 7
    assert result["resumed_from_bytes"] == 0
    assert (result["repaired_bytes"], result["repaired_ranges"]) == (0, [])
    told = events(done.stderr)
    assert len(told) == len(done.stderr.splitlines()), "every line is an event"
    assert [one["state"] for one in told if one["event"] == "ended"] == ["SUCCEEDED"]
    assert run("digest", source).stdout.strip() == result["digest"]
    assert run("digest", copy).stdout.strip() == result["digest"]

    listed = json.loads(run("list", "-o", "json").stdout)
    assert [(item["id"], item["state"]) for item in listed] == [(result["id"], "SUCCEEDED")]
    assert listed[0]["committed_bytes"] == listed[0]["size_bytes"] == 5 * MIB + 7
    assert not processes_of(tmp_path)
    report = json.loads(run("report", result["id"][:8], "-o", "json").stdout)
    assert report["proof"]["digest"] == result["digest"]
    assert len(report["steps"]) == len([one for one in told if one["event"] == "step_finished"])


@pytest.mark.timeout(180)
def test_its_report_is_signed_and_the_keys_are_gone(run: Run, tmp_path: Path) -> None:
    (tmp_path / "src").write_bytes(noise(MIB))
    done = run("copy", "src", "dst", "-o", "json")
    assert done.returncode == 0, done.stderr
    assert not list((tmp_path / "state" / "authorities").iterdir())
    told = run("report", json.loads(done.stdout)["id"], "-o", "json")
    (tmp_path / "report.json").write_text(told.stdout)

    checked = run("report", "--check", "report.json", "-o", "json")

    assert checked.returncode == 0, checked.stderr
    assert json.loads(checked.stdout)["authority_known"]
    assert json.loads(told.stdout)["state"] == "SUCCEEDED"


def test_it_loads_nothing_that_only_clouds_or_fleets_or_people_need(
    environment: dict[str, str], tmp_path: Path
) -> None:
    """Imports are most of what a small copy costs; seconds are not asked, other loads count."""
    (tmp_path / "a").write_bytes(noise(MIB))
    engine = "blockferry_controller.engine"
    heavy = (
        "dbos psycopg openstack keystoneauth1 sqlalchemy.orm rich urllib.request "
        f"{engine}.fleets {engine}.crew {engine}.fleet_records {engine}.outcomes"
    )
    code = (
        "import sys; from blockferry_controller.__main__ import main;"
        "code = main(['copy', 'a', 'b', '-o', 'json']);"
        f"sys.exit(code or ' '.join(n for n in '{heavy}'.split() if n in sys.modules) or 0)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path, env=environment, capture_output=True, text=True, check=False, timeout=50,
    )  # fmt: skip

    assert done.returncode == 0, done.stderr
    assert (tmp_path / "b").read_bytes() == (tmp_path / "a").read_bytes()


def test_a_profile_says_where_the_time_went(run: Run, tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(noise(4 * MIB))
    done = run("copy", "a", "b", "--profile", "-o", "json")
    assert done.returncode == 0, done.stderr
    profile = json.loads(done.stdout)["profile"]

    assert profile["bottleneck"]
    assert all(0 <= share <= 1 for share in profile["shares"].values())
    for side, name in (("source", "read"), ("source", "send"), ("sink", "write")):
        effort = profile[side]
        assert min(effort["seconds"], effort["cpu_seconds"], effort["cpus"]) > 0
        (stage,) = [one for one in effort["stages"] if one["name"] == name]
        assert stage["size_bytes"] == 4 * MIB
        assert min(stage["threads"], stage["busy_seconds"]) > 0

    told = run("copy", "a", "c", "--profile")
    assert "the bottleneck is " in told.stdout
    assert "bottleneck" not in run("copy", "a", "d").stdout


def smaller(at: Path) -> list[Path]:
    (at / "dst").write_bytes(b"kept")
    return [at / "src", at / "dst"]


def linked(at: Path) -> list[Path]:
    (at / "link").hardlink_to(at / "src")
    return [at / "src", at / "link"]


@pytest.mark.parametrize(
    ("paths", "code", "named"),
    [
        pytest.param(lambda at: [at / "nix", at / "dst"], 11, "nix", id="source missing"),
        pytest.param(lambda at: [at, at / "dst"], 12, "directory", id="source a directory"),
        pytest.param(lambda at: [at / "src", at], 12, "directory", id="destination a directory"),
        pytest.param(lambda at: [at / "src", at / "src"], 12, "same", id="same path"),
        pytest.param(linked, 12, "same", id="same file by another name"),
        pytest.param(lambda at: [at / "src", at / "no" / "dst"], 11, "no", id="parent missing"),
        pytest.param(smaller, 12, "4 B", id="destination smaller"),
    ],
)
def test_what_cannot_be_is_refused_and_nothing_changed(
    run: Run, tmp_path: Path, paths: Callable[[Path], list[Path]], code: int, named: str
) -> None:
    place = tmp_path / "files"
    place.mkdir()
    (place / "src").write_bytes(b"source")
    source, destination = paths(place)
    before = {path: path.read_bytes() for path in place.iterdir()}

    done = run("copy", source, destination, "-o", "json")

    assert done.returncode == code, done.stderr
    error = json.loads(done.stdout)["error"]
    assert error["exit_code"] == code
    assert named in error["message"]
    assert "Traceback" not in done.stderr
    assert {path: path.read_bytes() for path in place.iterdir()} == before


def test_a_larger_destination_keeps_its_tail(run: Run, tmp_path: Path) -> None:
    (tmp_path / "src").write_bytes(noise(MIB + 1))
    (tmp_path / "dst").write_bytes(b"\xff" * (3 * MIB))

    done = run("copy", "src", "dst")

    assert done.returncode == 0, done.stderr
    assert "copy 100.0 %" in done.stderr
    assert (tmp_path / "dst").read_bytes() == noise(MIB + 1) + b"\xff" * (2 * MIB - 1)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=lambda sign: sign.name)
def test_a_signal_stops_in_order_and_resume_ends_equal(
    run: Run, environment: dict[str, str], tmp_path: Path, number: signal.Signals
) -> None:
    size = 20 * MIB
    (tmp_path / "src").write_bytes(noise(size))
    arguments = ["copy", "src", "dst", "--limit", "10MiB/s", "-o", "json"]
    with subprocess.Popen(
        [sys.executable, "-m", "blockferry_controller", *arguments],
        cwd=tmp_path, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        assert process.stderr is not None
        for line in process.stderr:
            if line.startswith("{") and 0 < json.loads(line).get("committed_bytes", 0) < size:
                break
        stopped = time.monotonic()
        process.send_signal(number)
        out, err = process.communicate(timeout=30)
        seconds = time.monotonic() - stopped

    assert process.returncode == 130, err
    document = json.loads(out)
    assert document["error"]["reason"] == "INTERRUPTED"
    assert document["state"] == "INTERRUPTED"
    assert f"blockferry resume {document['id']}" in err
    assert seconds < 20, f"stopping took {seconds:.1f} s"
    assert not processes_of(tmp_path)

    resumed = run("resume", document["id"], "-o", "json")

    assert resumed.returncode == 0, resumed.stderr
    result = json.loads(resumed.stdout)
    assert 0 < result["resumed_from_bytes"] < size
    assert (result["state"], result["verified"]) == ("SUCCEEDED", True)
    assert (tmp_path / "dst").read_bytes() == noise(size)


def test_a_killed_copy_goes_on_from_the_sinks_own_commit_point(
    environment: dict[str, str], run: Run, tmp_path: Path
) -> None:
    size = 96 * MIB
    (tmp_path / "src").write_bytes(noise(size))
    told = struck(
        tmp_path, environment, ["copy", "src", "dst", "--limit", "40MiB/s"],
        lambda event: event.get("committed_bytes", 0) > size // 3, signal.SIGKILL,
    )  # fmt: skip
    committed = told["committed_bytes"]
    listed = json.loads(run("list", "-o", "json").stdout)
    assert listed[-1]["state"] == "INTERRUPTED"

    resumed = run("resume", listed[-1]["id"], "-o", "json")

    assert resumed.returncode == 0, resumed.stderr
    result = json.loads(resumed.stdout)
    assert committed <= result["resumed_from_bytes"] < size
    assert result["sent_bytes"] == size - result["resumed_from_bytes"]
    assert (tmp_path / "dst").read_bytes() == noise(size)
    assert not processes_of(tmp_path)


def test_what_was_told_is_kept_also_by_a_resume_that_stops_before_it_meets_anybody(
    run: Run, tmp_path: Path, environment: dict[str, str]
) -> None:
    size = 96 * MIB
    (tmp_path / "src").write_bytes(noise(size))
    told = struck(
        tmp_path, environment, ["copy", "src", "dst", "--limit", "40MiB/s"],
        lambda event: event.get("committed_bytes", 0) > 0, signal.SIGKILL,
    )  # fmt: skip
    committed, own = told["committed_bytes"], told["migration_id"]
    # It takes the killed run's agents away, and with them what only they knew.
    struck(
        tmp_path, environment, ["resume", own],
        lambda event: event["event"] == "step_started", signal.SIGINT,
    )  # fmt: skip

    resumed = run("resume", own, "-o", "json")

    assert resumed.returncode == 0, resumed.stderr
    assert 0 < committed <= json.loads(resumed.stdout)["resumed_from_bytes"] < size
    assert (tmp_path / "dst").read_bytes() == noise(size)
    assert not processes_of(tmp_path)


def struck(
    place: Path,
    environment: dict[str, str],
    arguments: list[str],
    due: Callable[[dict[str, Any]], bool],
    number: signal.Signals,
) -> dict[str, Any]:
    """Run a command and signal it at the first event that is due; that event."""
    with subprocess.Popen(
        [sys.executable, "-m", "blockferry_controller", *arguments, "-o", "json"],
        cwd=place, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
        start_new_session=True,
    ) as process:  # fmt: skip
        assert process.stderr is not None
        told = (json.loads(line) for line in process.stderr if line.startswith("{"))
        found: dict[str, Any] = next(event for event in told if due(event))
        os.killpg(process.pid, number)
        process.stderr.read()
    return found
