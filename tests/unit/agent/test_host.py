import os
from pathlib import Path

import pytest

from blockferry.errors import NotFoundError, PreconditionError
from blockferry.limits import MIB
from blockferry_agent import host

VOLUME = "4c1c3a39-1234-5678-9abc-def012345678"
OTHER = "4c1c3a39-1234-5678-9999-def012345678"
SERIAL = VOLUME[:20]


def test_it_knows_this_machine() -> None:
    assert len(host.boot_id()) == 36
    assert host.boot_id() == host.boot_id()
    assert host.hostname() == os.uname().nodename
    assert 1 <= host.cpu_count() <= (os.cpu_count() or 1)
    assert host.memory_bytes() > 64 * MIB
    assert MIB < host.resident_bytes() <= host.peak_resident_bytes() < host.memory_bytes()


class Machine:
    """A /dev and a /sys; disks are files."""

    def __init__(self, root: Path) -> None:
        self.dev, self.sys = root / "dev", root / "sys"
        self.by_id = self.dev / "disk" / "by-id"
        self.by_id.mkdir(parents=True)
        (self.sys / "block").mkdir(parents=True)

    def disk(
        self,
        name: str,
        facts: dict[str, bytes] | None = None,
        *,
        sectors: int = 2048,
        node: bool = True,
    ) -> Path:
        place = self.sys / "block" / name.replace("/", "!")
        for fact, content in {
            "size": b"%d\n" % sectors,
            "ro": b"0\n",
            "queue/logical_block_size": b"512\n",
            **(facts or {}),
        }.items():
            file = place / fact
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(content)
        path = self.dev / name
        if node:
            path.parent.mkdir(exist_ok=True)
            path.touch()
        return path

    def link(self, name: str, target: Path) -> None:
        (self.by_id / name).symlink_to(target)

    def find(self, volume_id: str = VOLUME) -> Path:
        return host.find_by_volume_id(volume_id, dev_root=self.dev, sys_root=self.sys)

    def list(self) -> list[host.BlockDeviceInfo]:
        return host.list_block_devices(dev_root=self.dev, sys_root=self.sys)


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


@pytest.mark.parametrize(
    "name",
    [
        f"virtio-{SERIAL}",
        f"scsi-0QEMU_QEMU_HARDDISK_{VOLUME}",
        f"scsi-SQEMU_QEMU_HARDDISK_{VOLUME}",
        f"ata-QEMU_HARDDISK_{SERIAL}",
        f"nvme-QEMU_NVMe_Ctrl_{SERIAL}",
        f"nvme-QEMU_NVMe_Ctrl_{SERIAL}_1",
    ],
)
def test_found_by_name(machine: Machine, name: str) -> None:
    disk = machine.disk("vdb")
    machine.link(name, disk)
    machine.link(f"{name}-part1", machine.disk("vdb1"))
    machine.link(f"virtio-{OTHER[:19]}z", machine.disk("vdc"))
    assert machine.find() == disk


SYSFS = {
    "virtio": {"serial": SERIAL.encode()},
    "virtio, not cut": {"serial": VOLUME.encode() + b"\n"},
    "nvme": {"device/serial": SERIAL.encode() + b"     \n"},
    "scsi, vpd page": {"device/vpd_pg80": b"\0\x80\0\x24" + VOLUME.encode()},
    "scsi, wwid": {"device/wwid": f"t10.QEMU    QEMU HARDDISK   {VOLUME}\n".encode()},
}


@pytest.mark.parametrize("facts", SYSFS.values(), ids=SYSFS.keys())
def test_found_by_serial(machine: Machine, facts: dict[str, bytes]) -> None:
    machine.disk("vda", {"serial": b"root"})
    machine.disk("vdc", {"serial": OTHER.encode()})
    disk = machine.disk("vdb", facts)
    assert machine.find() == disk


def test_names_may_lead_to_regular_files(machine: Machine, tmp_path: Path) -> None:
    image = tmp_path / "volume.img"
    image.touch()
    machine.link(f"virtio-{SERIAL}", image)
    assert machine.find() == image


def test_a_name_and_a_serial_of_one_disk_are_one(machine: Machine) -> None:
    disk = machine.disk("vdb", {"serial": SERIAL.encode()})
    machine.link(f"virtio-{SERIAL}", disk)
    machine.link(f"scsi-0QEMU_QEMU_HARDDISK_{VOLUME}", disk)
    assert machine.find() == disk


def test_a_dangling_name_is_a_disk_that_left(machine: Machine) -> None:
    machine.link(f"virtio-{SERIAL}", machine.dev / "vdb")
    with pytest.raises(NotFoundError):
        machine.find()


def test_several_disks_are_ambiguous(machine: Machine) -> None:
    machine.disk("vdb", {"serial": SERIAL.encode()})
    machine.link(f"virtio-{SERIAL}", machine.disk("vdc"))
    with pytest.raises(PreconditionError) as caught:
        machine.find()
    assert caught.value.reason == "DEVICE_AMBIGUOUS"
    assert "vdb" in caught.value.message
    assert "vdc" in caught.value.message


def test_none_tells_what_is_there(machine: Machine) -> None:
    machine.disk("vda", {"serial": b"root-disk"})
    machine.disk("vdb")
    machine.disk("loop0", sectors=0)
    with pytest.raises(NotFoundError) as caught:
        machine.find()
    assert caught.value.reason == "DEVICE_NOT_FOUND"
    assert "vda (root-disk), vdb (no serial)" in caught.value.message
    assert VOLUME in caught.value.message


def test_an_empty_machine_has_none(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError) as caught:
        host.find_by_volume_id(VOLUME, dev_root=tmp_path, sys_root=tmp_path)
    assert "no disks at all" in caught.value.message


def test_a_short_id_is_not_the_end_of_a_longer_one(machine: Machine) -> None:
    machine.link("virtio-vol-10", machine.disk("vdb"))
    with pytest.raises(NotFoundError):
        machine.find("vol-1")
    assert machine.find("vol-10") == machine.dev / "vdb"


def test_disks_are_listed_by_path(machine: Machine) -> None:
    machine.disk("vdb", {"serial": SERIAL.encode(), "ro": b"1\n"})
    machine.disk("cciss/c0d0", {"queue/logical_block_size": b"4096\n"}, sectors=16)
    machine.disk("loop0", sectors=0)
    machine.disk("gone", node=False)
    dev = machine.dev
    assert machine.list() == [
        host.BlockDeviceInfo(f"{dev}/cciss/c0d0", "", 8192, 4096, False, ""),
        host.BlockDeviceInfo(f"{dev}/vdb", SERIAL, MIB, 512, True, ""),
    ]


def test_the_real_machine_is_listed() -> None:
    for device in host.list_block_devices():
        assert device.size_bytes > 0
        assert device.logical_block_bytes in (512, 4096)
