"""What `blockferry migrate` predicts, refuses and carries over, between two embedded clouds."""

import contextlib
import json
import signal
import struct
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.integration.test_migrate import GIB, MIB, Ferry, clouds, ferry, only_volumes
from tests.sim import EmbeddedCloud

__all__ = ["clouds", "ferry"]

pytestmark = pytest.mark.timeout(120)


GPT = bytes(512) + b"EFI PART" + bytes(64) + struct.pack("<QII", 2, 128, 128) + bytes(424)
GPT += b"linux filesystem" + bytes(16) + struct.pack("<QQ", 63, 2000) + bytes(80) + bytes(MIB)
"""One partition, from sector 63 on."""


def described(cloud: EmbeddedCloud, volume_id: str) -> dict[str, Any]:
    """All that Cinder tells of a volume, but when it was last touched."""
    with contextlib.closing(cloud.connect()) as sdk:
        answer = sdk.block_storage.get(f"/volumes/{volume_id}").json()["volume"]
    return {key: value for key, value in answer.items() if key != "updated_at"}


@contextlib.contextmanager
def changed(kind: str, where: Any) -> Iterator[None]:
    """The volume type `kind` is one of `where` for a while."""
    where.add(kind)
    try:
        yield
    finally:
        where.remove(kind)


def dry_run(ferry: Ferry, volume: str, *options: object) -> tuple[int, dict[str, str], Any]:
    """Exit code, outcome of each check, the document."""
    done = ferry.migrate(volume, "--dry-run", *options)
    document = json.loads(done.stdout)
    outcomes = {check["name"]: check["outcome"] for check in document["checks"]}
    return done.returncode, outcomes, document


def test_a_volume_crosses_with_all_that_can_be_carried(ferry: Ferry, tmp_path: Path) -> None:
    east, west = ferry.clouds.east, ferry.clouds.west
    (tmp_path / "blockferry").mkdir()
    (tmp_path / "blockferry" / "config.yaml").write_text("clouds: {west: {types: {fast: shared}}}")
    image = {"hw_firmware_type": "uefi", "cinder_encryption_key_id": "k-1"}
    with changed("fast", east.cinder.multiattach_types):
        volume_id = east.make_volume(
            "root", 1, GPT, bootable=True, volume_type="fast", description="of the shop",
            metadata={"owner": "ann"}, image_metadata=image,
        )  # fmt: skip
    with east.lock:
        east.cinder.volumes[volume_id].read_only = True
    before = described(east, volume_id)
    west.faults.no_valid_host(times=2)
    with west.lock:
        west.cinder.types["shared"] = "4"
    try:
        with changed("shared", west.cinder.multiattach_types):
            done = ferry.migrate("root", "--max-duration", "1h", "--to-size", "2")
    finally:
        with west.lock:
            del west.cinder.types["shared"]
        west.faults.clear()

    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert [one["name"] for one in result["not_carried"]] == [
        "image_metadata.cinder_encryption_key_id"
    ]
    told = [json.loads(line) for line in done.stderr.splitlines() if line.startswith("{")]
    warnings = [one["message"] for one in told if one.get("level") == "warning"]
    assert any("fidelity" in one and "cinder_encryption_key_id" in one for one in warnings)
    assert any("refuses flavor m1.nano" in one and "m1.small" in one for one in warnings)
    assert any("holds a GPT:" in one and "sgdisk -e" in one for one in warnings)
    assert any(one.startswith("alignment: ") and " 512 bytes" in one for one in warnings)
    (probed,) = [one["detail"] for one in told if one.get("step") == "probe" and "detail" in one]
    assert "the destination writes" in probed
    assert result["size_bytes"] == GIB
    assert result["verified"], "and nothing is left of what was written to be measured"
    there = described(west, result["destination_volume_id"])
    for name in ("name", "description", "bootable", "multiattach", "metadata"):
        assert there[name] == before[name], name
    assert there["volume_type"] == "shared"
    assert there["metadata"] == {"owner": "ann", "readonly": "True"}
    assert there["volume_image_metadata"] == {"hw_firmware_type": "uefi"}
    assert described(east, volume_id) == before, "nothing about the source is changed"
    assert only_volumes(ferry)


def test_after_ctrl_c_the_source_is_as_it_was(ferry: Ferry) -> None:
    east = ferry.clouds.east
    volume_id = east.make_volume("data", 1, metadata={"owner": "ann"})
    before = described(east, volume_id)
    process = ferry.start("migrate", "data", "--from", "east", "--to", "west")
    deadline = time.monotonic() + 30
    while not east.cinder.volumes[volume_id].attachments and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == 130, stderr
    assert described(east, volume_id) == before
    assert only_volumes(ferry)


def test_a_window_that_is_too_short_is_found_before_the_first_byte(ferry: Ferry) -> None:
    ferry.clouds.east.make_volume("data", 1, bytes(range(256)) * 4096)
    done = ferry.migrate("data", "--max-duration", "5s", "--limit", "10B/s")
    assert done.returncode == 17, done.stderr
    error = json.loads(done.stdout)["error"]
    assert error["reason"] == "WINDOW_TOO_SHORT"
    assert "--limit" in error["message"]
    assert only_volumes(ferry)
    assert ferry.clouds.west.leftovers()["volumes"] == []


def test_a_volume_of_holes_fits_any_window(ferry: Ferry) -> None:
    ferry.clouds.east.make_volume("data", 1)
    done = ferry.migrate("data", "--max-duration", "5s")
    assert done.returncode == 0, done.stderr


def test_a_dry_run_makes_nothing_and_shows_every_check(ferry: Ferry) -> None:
    east, west = ferry.clouds.east, ferry.clouds.west
    east.make_volume("data", 1)
    before = len(west.requests)
    code, outcomes, document = dry_run(ferry, "data", "--skip-check", "wheels")
    assert code == 0
    assert {outcome for name, outcome in outcomes.items() if name != "wheels"} == {"ok"}
    assert outcomes["wheels"] == "warn"
    assert "assuming" in next(c for c in document["checks"] if c["name"] == "duration")["detail"]
    made = [one for one in list(west.requests)[before:] if one[1] != "GET"]
    assert {one[0] for one in made} <= {"keystone"}, "only a token was asked for"


@pytest.mark.parametrize(
    ("volume", "code", "failed"),
    [
        pytest.param("nothing", 11, "source-volume", id="no volume"),
        pytest.param("large", 14, "destination-quota", id="quota of the type"),
    ],
)
def test_a_dry_run_exits_as_the_migration_would(
    ferry: Ferry, volume: str, code: int, failed: str
) -> None:
    east, west = ferry.clouds.east, ferry.clouds.west
    east.make_volume("large", 3, volume_type="fast")
    west.quotas["gigabytes_fast"] = 2
    try:
        found, outcomes, document = dry_run(ferry, volume)
    finally:
        del west.quotas["gigabytes_fast"]
    assert found == code
    assert [name for name, outcome in outcomes.items() if outcome == "fail"] == [failed]
    assert document["error"]["exit_code"] == code


def test_an_encrypted_volume_does_not_become_a_plain_one(ferry: Ferry) -> None:
    """A tenant is not told whether a type encrypts: it is seen on the volume that was made."""
    east, west = ferry.clouds.east, ferry.clouds.west
    with changed("fast", east.cinder.encrypted_types):
        east.make_volume("data", 1, volume_type="fast")
    code, outcomes, _ = dry_run(ferry, "data")
    assert (code, outcomes["encryption"]) == (0, "warn")
    done = ferry.migrate("data")
    assert done.returncode == 12, done.stderr
    assert json.loads(done.stdout)["error"]["reason"] == "ENCRYPTION_LOST"
    assert west.leftovers()["volumes"] == []
    assert not west.leftovers()["servers"]


def test_a_user_who_may_only_look_is_told_at_once(ferry: Ferry) -> None:
    ferry.clouds.east.make_volume("data", 1)
    text = ferry.clouds.clouds_yaml.read_text(encoding="utf-8")
    assert text.count("demo") > 2
    other = ferry.clouds.clouds_yaml.with_name("reader.yaml")
    other.write_text(text.replace("username: demo", "username: reader"), encoding="utf-8")
    ferry.environment = {**ferry.environment, "OS_CLIENT_CONFIG_FILE": str(other)}
    code, outcomes, document = dry_run(ferry, "data")
    assert code == 10
    assert document["error"]["reason"] == "ROLE_TOO_SMALL"
    assert outcomes["source-access"] == outcomes["destination-access"] == "fail"
