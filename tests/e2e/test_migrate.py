"""Volumes with real files between two real clouds, and what accidents leave behind.

The source volume, and the guest in the destination that looks at copies, are made
once: a guest takes more than a minute to boot where it is emulated.
"""

import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import pytest

from tests.e2e.command import MIB, Event
from tests.e2e.conftest import Ferry
from tests.e2e.pair import Guest, TenantCloud, until
from tests.e2e.scripts import booted, reader, writer

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.timeout(1800),
    # The SDK warns of what its own methods call.
    pytest.mark.filterwarnings("ignore::PendingDeprecationWarning"),
]

FILES_MIB = 96
SLOW = ("--limit", "4MiB/s", "--compression", "none")


@dataclass(frozen=True)
class Files:
    """A volume in the source with files, and what the guest that wrote them told."""

    volume_id: str
    told: str


@dataclass(frozen=True)
class Scene:
    """What the tests of this module share."""

    files: Files
    reader: Guest


@pytest.fixture(scope="module")
def scene(source: TenantCloud, destination: TenantCloud) -> Iterator[Scene]:
    volume_id = source.make_volume(1)
    try:
        with destination.guest(reader()) as looking:
            with source.guest(writer(seed=11, mebibytes=FILES_MIB)) as writing:
                with ThreadPoolExecutor() as pool:
                    list(pool.map(lambda one: one.hears("guest", "ready"), (looking, writing)))
                told = writing.look_at(volume_id)
            yield Scene(Files(volume_id, told), looking)
    finally:
        source.delete_volume(volume_id)


def copying(event: Event) -> bool:
    """Some data is safe, and some is not."""
    return event["event"] == "progress" and int(event["sent_bytes"]) > 8 * MIB


def test_files_cross_to_another_type_and_a_larger_volume(ferry: Ferry, scene: Scene) -> None:
    before = ferry.existing()
    types = [one.name for one in ferry.destination.sdk.block_storage.types()]
    has = ferry.source.volume(scene.files.volume_id).volume_type
    other = next((name for name in types if name not in {has, "__DEFAULT__"}), has)

    result = ferry.finish(
        ferry.migrate(scene.files.volume_id, "--to-type", other, "--to-size", 2)
    ).result

    assert (result["state"], result["verified"]) == ("SUCCEEDED", True)
    assert result["data_bytes"] >= FILES_MIB * MIB * 0.9
    copy = ferry.destination.volume(result["destination_volume_id"])
    assert (copy.size, copy.volume_type, copy.status) == (2, other, "available")
    assert copy.name == ferry.source.volume(scene.files.volume_id).name
    assert scene.reader.look_at(copy.id) == scene.files.told
    ferry.record.lines.append(f"  files, bytes, checksum in both: {scene.files.told}")
    ferry.assert_only(before, copy.id)


@pytest.mark.parametrize("quota", ["instances", "security_group"])
def test_a_used_up_quota_is_refused(ferry: Ferry, scene: Scene, quota: str) -> None:
    # The reader is one instance already.
    limit = {"instances": 1, "security_group": 0}[quota]
    with ferry.destination.quota(quota, limit), ferry.nothing_changes():
        run = ferry.migrate(scene.files.volume_id)
        assert run.wait() == 14, run.told()
        ferry.record.add(run)


def test_ctrl_c_while_booting_leaves_nothing(ferry: Ferry, scene: Scene) -> None:
    there = ferry.destination.existing().ids["server"]
    with ferry.nothing_changes():
        run = ferry.migrate(scene.files.volume_id)
        until(
            lambda: bool(ferry.destination.existing().ids["server"] - there),
            "an instance in the destination", 120,
        )  # fmt: skip
        run.process.send_signal(signal.SIGINT)
        assert run.wait() == 130, run.told()
        ferry.record.add(run)


def test_a_killed_controller_is_resumed(ferry: Ferry, scene: Scene) -> None:
    before = ferry.existing()
    run = ferry.migrate(scene.files.volume_id, *SLOW)
    run.wait_for(copying)
    run.end()
    ferry.record.add(run)

    result = ferry.run("resume", run.migration_id).result

    assert (result["state"], result["verified"], result["epoch"]) == ("SUCCEEDED", True, 2)
    assert scene.reader.look_at(result["destination_volume_id"]) == scene.files.told
    ferry.assert_only(before, result["destination_volume_id"])


def test_after_a_killed_controller_cleanup_and_cancel_leave_nothing(
    ferry: Ferry, scene: Scene
) -> None:
    with ferry.nothing_changes():
        before = ferry.existing()
        run = ferry.migrate(scene.files.volume_id, *SLOW)
        run.wait_for(copying)
        run.end()
        ferry.record.add(run)

        ferry.run("cleanup")

        (kept,) = ferry.destination.existing().ids["volume"] - before[1].ids["volume"]
        ferry.assert_only(before, kept)
        ferry.run("cancel", run.migration_id)


def test_a_bootable_volume_boots_there(ferry: Ferry) -> None:
    with ferry.source.bootable_volume({"hw_disk_bus": "virtio", "os_distro": "debian"}) as source:
        before = ferry.existing()
        result = ferry.finish(ferry.migrate(source.id)).result
        copy = ferry.destination.volume(result["destination_volume_id"])
        assert copy.is_bootable
        said, there = source.volume_image_metadata, copy.volume_image_metadata
        for key in ("hw_disk_bus", "os_distro", "min_disk"):
            assert there.get(key) == said.get(key), key
        # Only an image says these of itself: told, not carried.
        told = {one["name"] for one in result["not_carried"]}
        assert "image_metadata.disk_format" in told
        with ferry.destination.guest(booted(), boot_volume=copy.id) as guest:
            assert guest.hears("guest", "root") == copy.id[:20]
        ferry.record.lines.append("  booted from the copy")
        ferry.assert_only(before, copy.id)


def test_no_wheels_to_be_had(ferry: Ferry, scene: Scene) -> None:
    with ferry.nothing_changes():
        # TEST-NET-1 (RFC 5737): nobody is there.
        run = ferry.migrate(scene.files.volume_id, "--wheels", "http://192.0.2.1:8088/")
        code = run.wait()
        ferry.record.add(run)
        assert code == 12, run.told()
        assert run.result["error"]["reason"] == "AGENT_INSTALL_FAILED"
        assert "192.0.2.1" in run.result["error"]["message"]


def test_an_empty_volume(ferry: Ferry) -> None:
    volume_id = ferry.source.make_volume(1)
    try:
        before = ferry.existing()
        result = ferry.finish(ferry.migrate(volume_id)).result
        assert (result["verified"], result["data_bytes"]) == (True, 0)
        ferry.assert_only(before, result["destination_volume_id"])
    finally:
        ferry.source.delete_volume(volume_id)
