"""Volumes between two real clouds: bytes, files, and all that describes a volume.

How long it takes is mostly how long guests boot: more than a minute where they are
emulated. What can share a migration does.
"""

from collections.abc import Mapping
from typing import Any

import pytest

from blockferry_controller.clouds.image_metadata import portable
from tests.e2e.command import MIB
from tests.e2e.conftest import Ferry
from tests.e2e.scene import FILES_MIB, Scene
from tests.e2e.scripts import booted

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.timeout(3600),
    # The SDK warns of what its own methods call.
    pytest.mark.filterwarnings("ignore::PendingDeprecationWarning"),
]


def carried(volume: Any) -> Mapping[str, object]:
    """What a copy has of its source where nobody asked for something else."""
    return {
        "name": volume.name,
        "description": volume.description,
        "metadata": dict(volume.metadata),
        "bootable": volume.is_bootable,
        "multiattach": volume.is_multiattach,
        "zone": volume.availability_zone,
        "image": portable(volume.volume_image_metadata or {}),
    }


def test_files_cross_to_a_larger_volume_of_another_type_by_ipv4(ferry: Ferry, scene: Scene) -> None:
    told, before = scene.files, ferry.existing()
    source = ferry.source.volume(scene.volume_id)
    types = [one.name for one in ferry.destination.sdk.block_storage.types()]
    other = next(name for name in types if name not in {source.volume_type, "__DEFAULT__"})

    result = ferry.finish(
        ferry.migrate(source.id, "--to-type", other, "--to-size", 2, "--ip-version", 4)
    ).result

    assert (result["state"], result["verified"], result["rung"]) == ("SUCCEEDED", True, "ipv4")
    assert result["data_bytes"] >= FILES_MIB * MIB * 0.9
    copy = ferry.destination.volume(result["destination_volume_id"])
    assert (copy.size, copy.volume_type, copy.status) == (2, other, "available")
    assert carried(copy) == carried(source)
    assert result["not_carried"] == []
    assert scene.reader.look_at(copy.id) == told
    scene.assert_source_as_ever(result["digest"])
    ferry.record.lines.append(f"  files, bytes, checksum in both: {told}")
    ferry.assert_only(before, copy.id)


def test_an_empty_read_only_multiattach_volume_crosses_by_ipv6(
    shared_type_there: str, ferry: Ferry
) -> None:
    volume_id = ferry.source.make_volume(
        1, name="e2e ünïcode ☂", volume_type=shared_type_there,
        metadata={"owner": "shop", "text": "größer ☂", "long": "x" * 255},
    )  # fmt: skip
    try:
        ferry.source.sdk.block_storage.set_volume_readonly(volume_id, True)
        before, source = ferry.existing(), ferry.source.volume(volume_id)
        for cloud in (ferry.source, ferry.destination):
            ferry.options[cloud.name]["wheels"] = cloud.wheels_ipv6

        result = ferry.finish(ferry.migrate(volume_id, "--ip-version", 6)).result

        assert (result["verified"], result["data_bytes"], result["rung"]) == (True, 0, "ipv6")
        copy = ferry.destination.volume(result["destination_volume_id"])
        assert carried(copy) == carried(source)
        assert (copy.is_multiattach, copy.metadata["readonly"]) == (True, "True")
        assert (copy.volume_type, copy.size) == (shared_type_there, 1)
        assert result["not_carried"] == []
        ferry.record.lines.append(f"  equal in both: {', '.join(carried(copy))}, read-only, type")
        ferry.assert_only(before, copy.id)
    finally:
        ferry.source.delete_volume(volume_id)


def test_a_bootable_volume_boots_there(ferry: Ferry) -> None:
    properties = {"hw_disk_bus": "virtio", "hw_machine_type": "pc", "os_distro": "debian"}
    with ferry.source.bootable_volume(properties) as source:
        before = ferry.existing()
        types = [one.name for one in ferry.destination.sdk.block_storage.types()]
        other = next(name for name in types if name not in {source.volume_type, "__DEFAULT__"})
        zone = source.availability_zone
        ferry.options[ferry.destination.name] |= {
            "types": {source.volume_type: other},
            "zones": {zone: zone},
        }
        plan = ferry.run("migrate", source.id, *ferry.way(), "--dry-run").result
        (fidelity,) = [one["detail"] for one in plan["checks"] if one["name"] == "fidelity"]

        run = ferry.finish(ferry.migrate(source.id, "--max-duration", "3h"))
        result = run.result

        (probed,) = [
            event["detail"]
            for event in run.events
            if event["event"] == "step_finished" and event["step"] == "probe"
        ]
        assert "the destination writes" in probed
        ferry.record.lines.append(f"  measured before the copy: {probed}")
        copy = ferry.destination.volume(result["destination_volume_id"])
        assert carried(copy) == carried(source)
        assert (copy.is_bootable, copy.volume_type) == (True, other)
        assert copy.volume_image_metadata | properties == copy.volume_image_metadata
        # Only an image says these of itself: told before and after, not carried.
        lost = {one["name"].removeprefix("image_metadata.") for one in result["not_carried"]}
        assert "disk_format" in lost
        assert all(name in fidelity for name in lost)
        report = ferry.start("report", result["id"])
        assert report.wait() == 0, report.told()
        assert report.result["not_carried"] == result["not_carried"]
        ferry.record.lines.append(f"  not carried, as foretold: {', '.join(sorted(lost))}")
        with ferry.destination.guest(booted(), boot_volume=copy.id) as guest:
            assert guest.hears("guest", "root") == copy.id[:20]
        ferry.record.lines.append("  booted from the copy: its console says so")
        ferry.assert_only(before, copy.id)
