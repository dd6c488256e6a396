"""A destination that changes behind the sink's back: named, sent again, proven anew.

The test spoils the copy itself, once the byte is committed and before the medium
is read back: a copy this small is read back when it is complete.
"""

import json
import os
import random
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.timeout(240)
"""Processes start, and a slow copy runs: a minute, on a machine that has much else to do."""

MIB = 1 << 20
SIZE = 20 * MIB + 77
PLACE = 3 * MIB + 5
CHUNK = [3 * MIB, 4 * MIB]
NOISE = random.Random(20).randbytes(SIZE)
Events = Iterator[dict[str, Any]]


class Copies:
    """`blockferry` in a directory with a source and a state of its own."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.destination = directory / "dst"
        (directory / "src").write_bytes(NOISE)
        kept = {
            name: text for name, text in os.environ.items() if not name.startswith("BLOCKFERRY")
        }
        state = {"BLOCKFERRY_STATE": f"sqlite:///{directory}/state/state.db"}
        self.environment = {**kept, **state, "XDG_CONFIG_HOME": str(directory)}

    @contextmanager
    def running(self, *arguments: str) -> "Iterator[subprocess.Popen[str]]":
        with subprocess.Popen(
            [sys.executable, "-m", "blockferry_controller", *arguments, "-o", "json"],
            cwd=self.directory, env=self.environment, stdout=subprocess.PIPE,
            stderr=subprocess.PIPE, text=True, start_new_session=True,
        ) as process:  # fmt: skip
            try:
                yield process
            finally:
                if process.poll() is None:
                    os.killpg(process.pid, signal.SIGKILL)

    def copy(self, meddle: Callable[[], object], until: Callable[[str], bool]) -> str | None:
        """Copy slowly, `meddle` once when the place is committed; kill when a note is `until`'s.

        Returns:
            The result document, or None when it was killed.
        """
        with self.running("copy", "src", "dst", "--limit", "8MiB/s") as process:
            meddled = False
            for event in events(process):
                if not meddled and event.get("committed_bytes", 0) > 4 * MIB:
                    assert event["committed_bytes"] < SIZE, "the copy was too quick for the test"
                    meddle()
                    meddled = True
                if event["event"] == "note" and until(event["message"]):
                    os.killpg(process.pid, signal.SIGKILL)
                    return None
            assert meddled
            assert process.stdout is not None
            return process.stdout.read()

    def run(self, *arguments: str) -> dict[str, Any]:
        with self.running(*arguments) as process:
            out, _ = process.communicate(timeout=120)
            found: Any = json.loads(out)
        return found if isinstance(found, dict) else {"items": found}

    def flip(self) -> None:
        with self.destination.open("r+b") as file:
            file.seek(PLACE)
            file.write(bytes([NOISE[PLACE] ^ 1]))


def events(process: "subprocess.Popen[str]") -> Events:
    assert process.stderr is not None
    for line in process.stderr:
        if line.startswith("{"):
            yield json.loads(line)


def never(_: str) -> bool:
    return False


@pytest.fixture
def copies(tmp_path: Path) -> Copies:
    return Copies(tmp_path)


def test_one_bit_is_found_named_and_repaired(copies: Copies) -> None:
    out = copies.copy(copies.flip, never)

    assert out is not None
    result = json.loads(out)
    assert (result["state"], result["verified"]) == ("SUCCEEDED", True)
    assert (result["repaired_bytes"], result["repaired_ranges"]) == (MIB, [CHUNK])
    assert result["sent_bytes"] == SIZE + MIB
    assert result["committed_bytes"] == SIZE
    assert copies.destination.read_bytes() == NOISE
    report = copies.run("report", result["id"])
    assert report["proof"]["repaired_ranges"] == [CHUNK]
    assert (report["counts"]["verified_bytes"], report["counts"]["reconnects"]) == (SIZE, 0)


def test_a_medium_that_changes_again_and_again_is_given_up(copies: Copies) -> None:
    over = threading.Event()

    def spoil() -> None:
        while not over.wait(0.0005):
            copies.flip()

    spoiler = threading.Thread(target=spoil)
    try:
        out = copies.copy(spoiler.start, never)
        assert out is not None
        result = json.loads(out)
        error = result["error"]
        assert (error["exit_code"], error["reason"]) == (20, "READBACK_MISMATCH")
        assert error["metadata"]["ranges"] == f"[{CHUNK[0]},{CHUNK[1]})"
        assert not result["verified"]
    finally:
        over.set()
        spoiler.join()


def test_a_source_that_changed_as_well_is_said_to_be_the_one(copies: Copies) -> None:
    def spoil_both() -> None:
        copies.flip()
        with (copies.directory / "src").open("r+b") as file:
            file.seek(PLACE)
            file.write(b"other")

    out = copies.copy(spoil_both, never)

    assert out is not None
    error = json.loads(out)["error"]
    assert (error["exit_code"], error["reason"]) == (20, "SOURCE_CHANGED")
    assert error["metadata"]["ranges"] == f"[{CHUNK[0]},{CHUNK[1]})"
    with copies.destination.open("rb") as file:
        file.seek(PLACE)
        assert file.read(1) == bytes([NOISE[PLACE] ^ 1]), "nothing was written from it"


def test_a_repair_survives_its_controller(copies: Copies) -> None:
    assert copies.copy(copies.flip, lambda note: "sending them again" in note) is None
    (left,) = copies.run("list")["items"]

    result = copies.run("resume", left["id"])

    assert (result["state"], result["verified"]) == ("SUCCEEDED", True)
    assert result["resumed_from_bytes"] == SIZE
    assert result["sent_bytes"] <= MIB
    assert result["repaired_ranges"] == [CHUNK]
    assert copies.destination.read_bytes() == NOISE
