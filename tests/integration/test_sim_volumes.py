"""Servers of the embedded clouds put volumes to use: mount them, and boot from them."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.pair import TenantCloud, until
from tests.e2e.scripts import MARK, booted, reader, writer
from tests.sim import EmbeddedCloud, Timings
from tests.sim.guest import why_volumes_cannot_be_mounted

pytestmark = [
    pytest.mark.root,
    pytest.mark.timeout(180),
    pytest.mark.skipif(
        bool(why_volumes_cannot_be_mounted()), reason=why_volumes_cannot_be_mounted()
    ),
    pytest.mark.filterwarnings("ignore::openstack.warnings.RemovedInSDK50Warning"),
    pytest.mark.filterwarnings("ignore::openstack.warnings.RemovedInSDK60Warning"),
    pytest.mark.filterwarnings("ignore::PendingDeprecationWarning"),
]
QUICK = Timings(0.02, 0.02, 0.02, 0.02, 0.02, 0.02)


def loops_of(directory: Path) -> str:
    """Loop devices on files below the directory; also on those already deleted."""
    listed = subprocess.run(
        ["losetup", "--list", "--noheadings", "--output", "NAME,BACK-FILE"],
        check=True, capture_output=True, text=True,
    )  # fmt: skip
    return "".join(line for line in listed.stdout.splitlines() if str(directory) in line)


@pytest.fixture
def cloud(tmp_path: Path) -> Iterator[EmbeddedCloud]:
    with EmbeddedCloud("east", tmp_path, timings=QUICK) as cloud:
        yield cloud
        assert cloud.problems == []
    assert loops_of(tmp_path) == ""


@pytest.fixture
def tenant(cloud: EmbeddedCloud, monkeypatch: pytest.MonkeyPatch) -> TenantCloud:
    monkeypatch.setenv("OS_CLIENT_CONFIG_FILE", str(cloud.clouds_yaml))
    return TenantCloud("east")


def test_files_of_one_guest_are_read_by_another(tenant: TenantCloud) -> None:
    volume_id = tenant.make_volume(1)
    with tenant.guest(writer(seed=1, mebibytes=4)) as guest:
        told = guest.look_at(volume_id)
        assert told.startswith("4 ")
    with tenant.guest(reader()) as guest:
        assert guest.look_at(volume_id) == told


def test_a_guest_dies_with_a_volume_mounted(
    cloud: EmbeddedCloud, tenant: TenantCloud, tmp_path: Path
) -> None:
    volume_id = tenant.make_volume(1)
    script = f"""#!/bin/sh
until [ -e /dev/vdb ]; do sleep 0.1; done
mkfs.ext4 -q /dev/vdb && mount /dev/vdb /mnt && echo "{MARK} volume mounted" > /dev/console
exec sleep 1000
"""
    guest = tenant.guest(script)
    tenant.sdk.compute.create_volume_attachment(guest.id, volume=volume_id)
    assert guest.hears("volume", "mounted") == ""
    assert loops_of(tmp_path)
    guest.delete()
    assert loops_of(tmp_path) == ""


def test_a_server_boots_from_a_volume_made_of_an_image(
    cloud: EmbeddedCloud, tenant: TenantCloud
) -> None:
    with tenant.bootable_volume({"hw_disk_bus": "virtio"}) as volume:
        assert volume.is_bootable
        assert volume.volume_image_metadata["disk_format"] == "qcow2"
        assert volume.volume_image_metadata["hw_disk_bus"] == "virtio"
        with tenant.guest(booted(), boot_volume=volume.id) as guest:
            assert guest.hears("guest", "root") == volume.id[:20]
            assert tenant.volume(volume.id).status == "in-use"
            tenant.sdk.compute.stop_server(guest.id)
            tenant.sdk.compute.wait_for_server(
                tenant.sdk.compute.get_server(guest.id), status="SHUTOFF", wait=60, interval=0.1
            )
            # Nothing of what it boots from is anywhere but in the volume's bytes.
            with cloud.volume_path(volume.id).open("r+b") as file:
                file.seek(1 << 20)
                file.write(bytes(1 << 20))
            tenant.sdk.compute.start_server(guest.id)
            console = tenant.sdk.compute.get_server_console_output
            until(lambda: "wrong fs type" in console(guest.id)["output"], "a failed mount", 60)
        assert cloud.volume_path(volume.id).stat().st_nlink == 1
