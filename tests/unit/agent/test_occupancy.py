"""Who uses a device, by made-up /proc and /sys; real ones are in tests/integration."""

import os
from pathlib import Path

import pytest

from blockferry_agent.occupancy import device_in_use_reason, in_use_reason, same_device

# vda (252:0) with vda1 and vda2; vdb (252:16); dm-0 (253:0) on vda2; loop3 (7:3) on a file.
VDA, VDA1, VDA2 = os.makedev(252, 0), os.makedev(252, 1), os.makedev(252, 2)
VDB, DM0, LOOP3 = os.makedev(252, 16), os.makedev(253, 0), os.makedev(7, 3)
FREE = ""


class Machine:
    """A /proc and a /sys as Linux lays them out."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.proc, self.sys = root / "proc", root / "sys"
        self.image = root / "disk image.raw"
        self.image.touch()
        (self.proc / "self").mkdir(parents=True)
        self.mounts("")
        self.swaps("")
        vda = self._node("devices/pci/virtio1/block/vda", "252:0")
        self._node("devices/pci/virtio1/block/vda/vda1", "252:1", partition=1)
        vda2 = self._node("devices/pci/virtio1/block/vda/vda2", "252:2", partition=2)
        self._node("devices/pci/virtio2/block/vdb", "252:16")
        dm0 = self._node("devices/virtual/block/dm-0", "253:0")
        loop3 = self._node("devices/virtual/block/loop3", "7:3")
        (loop3 / "loop").mkdir()
        (loop3 / "loop" / "backing_file").write_text(f"{self.image}\n")
        (self.sys / "block").mkdir()
        for node in (vda, dm0, loop3):
            (self.sys / "block" / node.name).symlink_to(node)
        self.vda2 = vda2

    def _node(self, place: str, number: str, partition: int | None = None) -> Path:
        node = self.sys / place
        (node / "holders").mkdir(parents=True)
        (node / "dev").write_text(f"{number}\n")
        if partition is not None:
            (node / "partition").write_text(f"{partition}\n")
        by_number = self.sys / "dev" / "block"
        by_number.mkdir(parents=True, exist_ok=True)
        (by_number / number).symlink_to(node)
        return node

    def mounts(self, *lines: str) -> None:
        (self.proc / "self" / "mountinfo").write_text("".join(f"{line}\n" for line in lines))

    def swaps(self, line: str) -> None:
        header = "Filename\t\t\t\tType\t\tSize\t\tUsed\t\tPriority\n"
        (self.proc / "swaps").write_text(header + line)

    def hold(self, node: Path, holder: str) -> None:
        (node / "holders" / holder).mkdir()

    def reason(self, rdev: int) -> str:
        return device_in_use_reason(rdev, proc_root=self.proc, sys_root=self.sys)

    def file_reason(self) -> str:
        return in_use_reason(self.image, proc_root=self.proc, sys_root=self.sys)


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def test_an_idle_machine_has_free_devices(machine: Machine) -> None:
    for rdev in (VDA, VDA1, VDA2, VDB, DM0, LOOP3):
        assert machine.reason(rdev) == FREE
    assert machine.file_reason() == FREE


def test_a_mounted_partition_takes_its_disk_but_not_its_sister(machine: Machine) -> None:
    machine.mounts("36 25 252:1 / /mnt/my\\040data rw,noatime shared:1 - ext4 /dev/vda1 rw")
    assert machine.reason(VDA1) == "/dev/vda1 is mounted on /mnt/my data"
    assert machine.reason(VDA) == "/dev/vda1 is mounted on /mnt/my data"
    assert machine.reason(VDA2) == FREE
    assert machine.reason(VDB) == FREE


def test_a_mounted_disk_takes_its_partitions(machine: Machine) -> None:
    machine.mounts("36 25 252:0 / /mnt rw - ext4 /dev/vda rw")
    assert machine.reason(VDA2) == "/dev/vda is mounted on /mnt"


def test_the_root_disk_is_called_so(machine: Machine) -> None:
    machine.mounts("22 1 252:1 / / rw - ext4 /dev/vda1 rw")
    assert machine.reason(VDA) == "/dev/vda1 is mounted on /; it is the root disk"


def test_other_mounts_do_not_matter(machine: Machine) -> None:
    machine.mounts(
        "23 22 0:21 / /proc rw - proc proc rw", "24 22 0:22 / /sys rw - sysfs sysfs rw", "odd line"
    )
    assert machine.reason(VDA) == FREE


def test_what_is_stacked_on_it_holds_it(machine: Machine) -> None:
    machine.hold(machine.vda2, "dm-0")
    for rdev in (VDA2, VDA):
        assert machine.reason(rdev).startswith("dm-0 (LVM, LUKS, RAID or multipath)")
    assert machine.reason(VDA1) == FREE


def test_a_file_under_a_mounted_loop_device_is_in_use(machine: Machine) -> None:
    machine.mounts("36 25 7:3 / /mnt rw - ext4 /dev/loop3 rw")
    assert machine.file_reason() == (
        "the loop device on it is in use: /dev/loop3 is mounted on /mnt"
    )


def test_a_swap_file_is_in_use(machine: Machine) -> None:
    escaped = str(machine.image).replace(" ", "\\040")
    machine.swaps(f"{escaped} file 1048572 0 -2\n")
    assert machine.file_reason() == "it is used as swap"


def test_without_proc_and_sys_nothing_is_known(tmp_path: Path) -> None:
    nowhere = tmp_path / "nowhere"
    assert device_in_use_reason(VDA, proc_root=nowhere, sys_root=nowhere) == FREE


def test_directories_are_not_judged_here(tmp_path: Path) -> None:
    assert in_use_reason(tmp_path) == FREE


class TestSameDevice:
    def test_one_file_under_several_names(self, tmp_path: Path) -> None:
        file, link, hard = tmp_path / "a", tmp_path / "b", tmp_path / "c"
        file.touch()
        link.symlink_to(file)
        hard.hardlink_to(file)
        assert same_device(file, file)
        assert same_device(file, link)
        assert same_device(hard, link)

    def test_two_files(self, tmp_path: Path) -> None:
        for name in "ab":
            (tmp_path / name).write_text("equal content")
        assert not same_device(tmp_path / "a", tmp_path / "b")

    def test_what_is_not_there_is_no_device(self, tmp_path: Path) -> None:
        assert not same_device(tmp_path / "a", tmp_path / "a")
