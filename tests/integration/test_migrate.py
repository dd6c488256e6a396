"""`blockferry migrate` as a person runs it, between two embedded clouds.

Everything but the clouds is real: the CLI in a process, cloud-init's user-data
in guests, agents over mutual TLS.
"""

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import pytest

from blockferry import __version__
from tests.sim import EmbeddedCloud, EmbeddedClouds

MIB = 1 << 20
GIB = 1 << 30

pytestmark = pytest.mark.timeout(120)


@dataclass
class Ferry:
    """Two clouds, and the command line beside them."""

    clouds: EmbeddedClouds
    environment: Mapping[str, str]
    processes: "list[subprocess.Popen[str]]" = field(default_factory=list)

    def start(self, *arguments: object) -> "subprocess.Popen[str]":
        process = subprocess.Popen(
            [sys.executable, "-m", "blockferry_controller", *map(str, arguments)],
            env=self.environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        self.processes.append(process)
        return process

    def close(self) -> None:
        """End what a failed test has left running."""
        for process in self.processes:
            if process.returncode is None:
                process.kill()
                process.communicate()

    def run(self, *arguments: object) -> "subprocess.CompletedProcess[str]":
        process = self.start(*arguments)
        stdout, stderr = process.communicate(timeout=100)
        return subprocess.CompletedProcess(process.args, process.returncode, stdout, stderr)

    def migrate(self, volume: str, *options: object) -> "subprocess.CompletedProcess[str]":
        return self.run("migrate", volume, "--from", "east", "--to", "west", "-o", "json", *options)

    def newest(self) -> dict[str, Any]:
        done = self.run("list", "-o", "json")
        assert done.returncode == 0, done.stderr
        listed: list[dict[str, Any]] = json.loads(done.stdout)
        return listed[-1] if listed else {"state": "", "committed_bytes": 0}

    def wait_until(
        self, process: "subprocess.Popen[str]", condition: Callable[[dict[str, Any]], bool]
    ) -> dict[str, Any]:
        """The newest migration, which `process` drives, once `condition` holds for it."""
        known: dict[str, Any] = {}
        changed_at = time.monotonic()
        while time.monotonic() < changed_at + 90:
            newest = self.newest()
            if condition(newest):
                return newest
            assert process.poll() is None, process.communicate()[1]
            if newest != known:
                known, changed_at = newest, time.monotonic()
            time.sleep(0.1)
        raise TimeoutError(known)


@pytest.fixture(scope="module")
def clouds(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedClouds]:
    directory = tmp_path_factory.mktemp("clouds")
    with EmbeddedClouds(directory, prepared_version=__version__) as clouds:
        yield clouds
        assert clouds.east.problems == clouds.west.problems == []


@pytest.fixture
def ferry(clouds: EmbeddedClouds, tmp_path: Path) -> Iterator[Ferry]:
    kept = {name: text for name, text in os.environ.items() if not name.startswith("BLOCKFERRY_")}
    ours = {
        "BLOCKFERRY_STATE": f"sqlite:///{tmp_path}/state/state.db",
        "OS_CLIENT_CONFIG_FILE": str(clouds.clouds_yaml),
        "XDG_CONFIG_HOME": str(tmp_path),
    }
    ferry = Ferry(clouds, kept | ours)
    yield ferry
    ferry.close()
    for cloud in (clouds.east, clouds.west):
        _empty(cloud)


def _empty(cloud: EmbeddedCloud) -> None:
    """Take the test's volumes away; whatever else is there is a leftover."""
    left = cloud.leftovers()
    with contextlib.closing(cloud.connect()) as sdk:
        # A failed test's: it is not to fail the next one, too.
        for server in list(sdk.compute.servers()):
            sdk.compute.delete_server(server.id)
            sdk.compute.wait_for_delete(server, interval=0.05)
        for volume in list(sdk.block_storage.volumes()):
            sdk.block_storage.delete_volume(volume.id)
            sdk.block_storage.wait_for_delete(volume, interval=0.05)
    assert not any(left[kind] for kind in ("servers", "ports", "security groups")), left


def fill(
    *, seed: int = 1, data_mib: int = 24, garbage_behind: bool = False
) -> Callable[[Path], None]:
    """A volume's content: noise, a stretch that compresses, the rest empty."""

    def write(path: Path) -> None:
        source = random.Random(seed)
        with path.open("r+b") as file:
            for _ in range(data_mib // 2):
                file.write(source.randbytes(MIB))
            file.seek(200 * MIB)
            file.write(source.randbytes(64).hex().encode() * (MIB * data_mib // 2 // 128))
            if garbage_behind:
                file.seek(GIB - 5)
                file.write(b"\xffend!")

    return write


def assert_equal(ferry: Ferry, source_id: str, destination_id: str) -> None:
    source = ferry.clouds.east.volume_path(source_id)
    destination = ferry.clouds.west.volume_path(destination_id)
    with source.open("rb") as left, destination.open("rb") as right:
        for start in range(0, source.stat().st_size, MIB):
            if _hole(left, start) and _hole(right, start):
                continue
            assert os.pread(left.fileno(), MIB, start) == os.pread(right.fileno(), MIB, start)


def _hole(file: BinaryIO, start: int) -> bool:
    try:
        return os.lseek(file.fileno(), start, os.SEEK_DATA) >= start + MIB
    except OSError:
        return True


def only_volumes(ferry: Ferry) -> bool:
    for cloud in (ferry.clouds.east, ferry.clouds.west):
        left = cloud.leftovers()
        if any(left[kind] for kind in ("servers", "ports", "security groups")):
            return False
    return True


def test_a_volume_crosses_with_what_belongs_to_it(ferry: Ferry) -> None:
    source_id = ferry.clouds.east.make_volume(
        "root", 1, fill(garbage_behind=True), bootable=True, volume_type="fast",
        description="of the old shop", metadata={"owner": "ann"},
        image_metadata={"hw_firmware_type": "uefi", "min_disk": "1"},
    )  # fmt: skip

    done = ferry.migrate("root", "--to-name", "root-2")

    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert (result["state"], result["verified"]) == ("SUCCEEDED", True)
    assert result["data_bytes"] + result["zero_bytes"] == result["size_bytes"] == GIB
    assert_equal(ferry, source_id, result["destination_volume_id"])
    with contextlib.closing(ferry.clouds.west.connect()) as sdk:
        volume = sdk.block_storage.get_volume(result["destination_volume_id"])
    assert (volume.name, volume.description) == ("root-2", "of the old shop")
    assert (volume.volume_type, volume.is_bootable) == ("fast", True)
    assert volume.metadata == {"owner": "ann"}
    assert volume.volume_image_metadata["hw_firmware_type"] == "uefi"
    assert only_volumes(ferry)
    listed = ferry.newest()
    assert listed.keys() >= {
        "id",
        "state",
        "source",
        "destination",
        "size_bytes",
        "committed_bytes",
    }
    assert (listed["state"], listed["committed_bytes"]) == ("SUCCEEDED", GIB)


def test_a_new_volume_is_not_taken_for_zero(tmp_path: Path, ferry: Ferry) -> None:
    source_id = ferry.clouds.east.make_volume("data", 1, fill())
    ferry.clouds.west.thick = True
    try:
        done = ferry.migrate("data")
    finally:
        ferry.clouds.west.thick = False
    assert done.returncode == 0, done.stderr
    assert_equal(ferry, source_id, json.loads(done.stdout)["destination_volume_id"])


def test_a_larger_destination(ferry: Ferry) -> None:
    source_id = ferry.clouds.east.make_volume("data", 1, fill())
    done = ferry.migrate("data", "--to-size", 2, "--verify", "wire", "--compression", "none")
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["verified"] is False
    assert ferry.clouds.west.volume_path(result["destination_volume_id"]).stat().st_size == 2 * GIB
    assert_equal(ferry, source_id, result["destination_volume_id"])


SLOW = ("--limit", "2MiB/s", "--compression", "none")
"""40 MiB take 20 s: a busy machine is in time to strike, too."""


def copying(record: Mapping[str, Any]) -> bool:
    return bool(record["committed_bytes"] > 4 * MIB)


def test_a_killed_controller_is_resumed_where_it_was(ferry: Ferry) -> None:
    source_id = ferry.clouds.east.make_volume("data", 1, fill(data_mib=40))
    process = ferry.start("migrate", "data", "--from", "east", "--to", "west", *SLOW)
    ferry.wait_until(process, copying)
    process.kill()
    process.communicate()
    found = ferry.newest()
    assert found["state"] == "INTERRUPTED"

    done = ferry.run("resume", found["id"], "-o", "json")

    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert (result["state"], result["verified"], result["epoch"]) == ("SUCCEEDED", True, 2)
    # The agents went on meanwhile, and what they did then is not this run's.
    assert result["resumed_from_bytes"] >= found["committed_bytes"] > 0
    assert result["sent_bytes"] <= result["size_bytes"] - result["resumed_from_bytes"]
    assert_equal(ferry, source_id, result["destination_volume_id"])
    assert only_volumes(ferry)


@pytest.mark.timeout(300)
def test_cleanup_leaves_what_resume_needs(ferry: Ferry) -> None:
    source_id = ferry.clouds.east.make_volume("data", 1, fill(data_mib=40))
    process = ferry.start("migrate", "data", "--from", "east", "--to", "west", *SLOW)
    ferry.wait_until(process, copying)
    process.kill()
    process.communicate()
    assert not only_volumes(ferry)
    deadline = time.monotonic() + 120
    while not only_volumes(ferry):
        # As long as the pair copies on, everything is kept.
        assert time.monotonic() < deadline
        cleaned = ferry.run("cleanup")
        assert cleaned.returncode == 0, cleaned.stderr
    done = ferry.run("resume", ferry.newest()["id"], "-o", "json")
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["resumed_from_bytes"] > 0
    assert_equal(ferry, source_id, result["destination_volume_id"])


@pytest.mark.timeout(300)
def test_cleanup_keeps_a_pair_that_has_not_ended(ferry: Ferry) -> None:
    source_id = ferry.clouds.east.make_volume("data", 1, fill(data_mib=40))
    process = ferry.start("migrate", "data", "--from", "east", "--to", "west", "--limit", "1MiB/s")
    ferry.wait_until(process, lambda record: bool(record["committed_bytes"]))
    # Held, so that it has not ended either when this machine is slow to ask.
    own = ferry.newest()["id"]
    paused = ferry.run("pause", own)
    assert paused.returncode == 0, paused.stderr
    process.kill()
    process.communicate()

    items = json.loads(ferry.run("cleanup", "-o", "json").stdout)

    assert {item["action"] for item in items} == {"keep"}
    assert {item["kind"] for item in items} >= {"server", "port", "volume"}
    assert "still at work" in next(one["reason"] for one in items if one["kind"] == "server")
    ferry.run("set", own, "limit=none")
    done = ferry.run("resume", own, "-o", "json")
    assert done.returncode == 0, done.stderr
    assert_equal(ferry, source_id, json.loads(done.stdout)["destination_volume_id"])


def test_ctrl_c_stops_in_order_and_can_be_resumed(ferry: Ferry) -> None:
    source_id = ferry.clouds.east.make_volume("data", 1, fill(data_mib=40))
    process = ferry.start("migrate", "data", "--from", "east", "--to", "west", *SLOW)
    ferry.wait_until(process, copying)
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == 130, stderr
    stopped = ferry.newest()
    assert stopped["state"] == "INTERRUPTED"
    assert only_volumes(ferry)

    done = ferry.run("resume", stopped["id"], "-o", "json")

    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["resumed_from_bytes"] >= stopped["committed_bytes"] > 0
    assert 0 < result["sent_bytes"] < 40 * MIB
    assert_equal(ferry, source_id, result["destination_volume_id"])


def test_ctrl_c_while_booting_leaves_nothing(ferry: Ferry) -> None:
    ferry.clouds.east.make_volume("data", 1, fill())
    process = ferry.start("migrate", "data", "--from", "east", "--to", "west")
    deadline = time.monotonic() + 30
    while not ferry.clouds.west.leftovers()["servers"] and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == 130, stderr
    assert only_volumes(ferry)
    assert ferry.clouds.west.leftovers()["volumes"] == []


def test_cancel_from_another_process_removes_everything(ferry: Ferry) -> None:
    ferry.clouds.east.make_volume("data", 1, fill(data_mib=80))
    process = ferry.start("migrate", "data", "--from", "east", "--to", "west", *SLOW)
    running = ferry.wait_until(process, copying)
    twice = ferry.run("resume", running["id"])
    assert twice.returncode == 13, twice.stderr

    cancelled = ferry.run("cancel", running["id"])

    assert cancelled.returncode == 0, cancelled.stderr
    process.communicate(timeout=60)
    assert process.returncode == 130
    assert ferry.newest()["state"] == "CANCELLED"
    assert only_volumes(ferry)
    assert ferry.clouds.west.leftovers()["volumes"] == []
    again = ferry.run("resume", running["id"])
    assert again.returncode == 12, again.stderr


@pytest.mark.parametrize(
    ("arguments", "exit_code", "said"),
    [
        pytest.param(["nowhere", "east", "west"], 11, "nowhere", id="no such volume"),
        pytest.param(["data", "north", "west"], 11, "north", id="no such source cloud"),
        pytest.param(["data", "east", "south"], 11, "south", id="no such destination cloud"),
        pytest.param(["data", "east", "east"], 12, "same", id="one cloud"),
        pytest.param(["twin", "east", "west"], 12, "twin", id="ambiguous"),
        pytest.param(["large", "east", "west", "--to-size", "1"], 12, "1", id="too small"),
        pytest.param(["data", "east", "west", "--to-size", "0"], 2, "size", id="no size"),
        pytest.param(["data", "east", "west", "--image", "x"], 11, "x", id="no such image"),
        pytest.param(["data", "east", "west", "--flavor", "x"], 11, "x", id="no such flavor"),
        pytest.param(["data", "east", "west", "--network", "x"], 11, "x", id="no such network"),
        pytest.param(["data", "east", "west", "--to-type", "x"], 11, "x", id="no such type"),
        pytest.param(["data", "east", "west", "--to-az", "x"], 11, "x", id="no such zone"),
        pytest.param(["data", "east", "west", "--limit", "fast"], 2, "fast", id="no rate"),
        pytest.param(["broken", "east", "west"], 12, "error", id="wrong state"),
    ],
)
def test_bad_input_changes_nothing(
    ferry: Ferry, arguments: list[str], exit_code: int, said: str
) -> None:
    east = ferry.clouds.east
    for name, size_gib in (("data", 1), ("twin", 1), ("twin", 1), ("large", 2), ("broken", 1)):
        volume_id = east.make_volume(name, size_gib)
    with east.lock:
        east.cinder.volumes[volume_id].status = "error"
    before = east.leftovers(), ferry.clouds.west.leftovers()
    volume, source, destination, *options = arguments

    done = ferry.run("migrate", volume, "--from", source, "--to", destination, *options)

    assert done.returncode == exit_code, done.stderr
    assert said in done.stderr
    assert "Traceback" not in done.stderr
    assert (east.leftovers(), ferry.clouds.west.leftovers()) == before


def test_an_attached_volume_is_refused_with_its_server(ferry: Ferry) -> None:
    east = ferry.clouds.east
    volume_id = east.make_volume("data", 1)
    with contextlib.closing(east.connect()) as sdk:
        image = next(iter(sdk.image.images()))
        flavor = next(iter(sdk.compute.flavors()))
        server = sdk.compute.create_server(
            name="shop", image_id=image.id, flavor_id=flavor.id, networks="none"
        )
        server = sdk.compute.wait_for_server(server, interval=0.1)
        sdk.compute.create_volume_attachment(server, volume=volume_id)
        volume = sdk.block_storage.get_volume(volume_id)
        sdk.block_storage.wait_for_status(volume, "in-use", interval=0.1)
        try:
            done = ferry.migrate("data")
            assert done.returncode == 12
            assert server.id in done.stderr
            assert json.loads(done.stdout)["error"]["reason"] == "VOLUME_ATTACHED"
        finally:
            sdk.compute.delete_server(server)
            sdk.compute.wait_for_delete(server, interval=0.1)


@pytest.mark.parametrize(
    "quota", ["instances", "cores", "ram", "volumes", "gigabytes", "port", "security_group"]
)
def test_a_used_up_quota_is_found_before_anything_is_made(ferry: Ferry, quota: str) -> None:
    ferry.clouds.east.make_volume("data", 1)
    west = ferry.clouds.west
    before = west.quotas[quota]
    west.quotas[quota] = 0
    try:
        done = ferry.migrate("data")
    finally:
        west.quotas[quota] = before
    assert done.returncode == 14, done.stderr
    assert "quota" in done.stderr.lower()
    assert only_volumes(ferry)
    assert west.leftovers()["volumes"] == []
