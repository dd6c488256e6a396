"""Real disks that are mounted, swap, held, full or broken, made of loop devices."""

import os
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from blockferry.errors import BlockferryError, CapacityError, DeviceError, PreconditionError
from blockferry.limits import CHUNK_BYTES, MIB
from blockferry_agent.blockdev import open_device, same_device
from tests.loops import loop_device, run

pytestmark = pytest.mark.root

SIZE = 16 * MIB


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / "disk.img"
    with path.open("wb") as file:
        file.truncate(SIZE)
    return path


@pytest.fixture
def disk(image: Path) -> Iterator[Path]:
    with loop_device(image) as device:
        yield device


@contextmanager
def mounted(device: Path | str, point: Path, *options: str) -> Iterator[Path]:
    point.mkdir()
    try:
        run("mount", *options, device, point)
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"cannot mount here: {error}")
    try:
        yield point
    finally:
        run("umount", point)


def refusal(path: Path, *, writable: bool) -> BlockferryError:
    with pytest.raises(BlockferryError) as caught:
        open_device(path, writable=writable)
    return caught.value


@pytest.mark.parametrize("options", [(), ("-o", "ro")], ids=["writable", "read-only"])
def test_a_mounted_disk_and_the_file_under_it(
    disk: Path, image: Path, tmp_path: Path, options: tuple[str, ...]
) -> None:
    run("mkfs.ext4", "-q", disk)
    with mounted(disk, tmp_path / "mnt", *options):
        for path in (disk, image):
            for writable in (True, False):
                error = refusal(path, writable=writable)
                assert isinstance(error, PreconditionError)
                assert error.reason == "DEVICE_IN_USE"
                assert f"is mounted on {tmp_path / 'mnt'}" in error.message
    for path in (disk, image):
        open_device(path, writable=True).close()


def test_swap(disk: Path, tmp_path: Path) -> None:
    run("mkswap", disk)
    try:
        run("swapon", disk)
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"no swap here: {error}")
    try:
        assert "used as swap" in refusal(disk, writable=True).message
    finally:
        run("swapoff", disk)


def test_a_disk_that_another_program_holds(disk: Path) -> None:
    fd = os.open(disk, os.O_RDONLY | os.O_EXCL)
    try:
        for writable in (True, False):
            error = refusal(disk, writable=writable)
            assert error.reason == "DEVICE_IN_USE"
            assert "another program holds it" in error.message
    finally:
        os.close(fd)


def test_one_writer_or_several_readers(disk: Path) -> None:
    writer = open_device(disk, writable=True)
    assert refusal(disk, writable=False).reason == "DEVICE_IN_USE"
    writer.close()
    readers = [open_device(disk, writable=False) for _ in range(2)]
    for reader in readers:
        reader.close()


def test_a_read_only_disk(image: Path) -> None:
    with loop_device(image, "--read-only") as disk:
        error = refusal(disk, writable=True)
        assert isinstance(error, PreconditionError)
        assert error.reason == "DEVICE_READ_ONLY"
        open_device(disk, writable=False).close()


def test_same_device_sees_through_loops(disk: Path, image: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.img"
    with other.open("wb") as file:
        file.truncate(SIZE)
    with loop_device(image) as second, loop_device(other) as third:
        assert same_device(disk, image)
        assert same_device(image, disk)
        assert same_device(disk, second)
        assert not same_device(disk, third)
        assert not same_device(disk, other)


def test_a_full_filesystem_is_no_space(tmp_path: Path) -> None:
    with ExitStack() as stack:
        point = stack.enter_context(
            mounted("tmpfs", tmp_path / "small", "-t", "tmpfs", "-o", "size=2m")
        )
        path = point / "volume"
        with path.open("wb") as file:
            file.truncate(SIZE)
        device = open_device(path, writable=True)
        stack.callback(device.close)
        device.write_at(0, b"x" * CHUNK_BYTES)
        with pytest.raises(CapacityError) as caught:
            device.write_at(CHUNK_BYTES, b"x" * 2 * CHUNK_BYTES)
        assert caught.value.reason == "NO_SPACE"
        assert CHUNK_BYTES <= int(caught.value.metadata["offset_bytes"]) <= 2 * MIB


def test_a_disk_that_loses_its_storage_fails_to_flush_and_to_read(tmp_path: Path) -> None:
    with ExitStack() as stack:
        point = stack.enter_context(
            mounted("tmpfs", tmp_path / "small", "-t", "tmpfs", "-o", "size=2m")
        )
        path = point / "volume"
        with path.open("wb") as file:
            file.truncate(SIZE)
        disk = stack.enter_context(loop_device(path))
        device = open_device(disk, writable=True)
        stack.callback(device.close)
        for index in range(4):
            device.write_at(index * CHUNK_BYTES, b"x" * CHUNK_BYTES)
        with pytest.raises(BlockferryError) as caught:
            device.flush()
        assert caught.value.reason in ("DEVICE_IO_FLUSH", "NO_SPACE")
        os.truncate(path, 0)
        with pytest.raises(DeviceError) as read:
            device.read_into(8 * CHUNK_BYTES, memoryview(bytearray(CHUNK_BYTES)))
        assert read.value.reason == "DEVICE_IO_READ"
