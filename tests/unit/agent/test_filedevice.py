"""A regular file as a device: what only files and the kernel do."""

import errno
import mmap
import os
from pathlib import Path

import pytest

from blockferry.errors import DeviceError, UsageError
from blockferry.limits import CHUNK_BYTES, MIB
from blockferry_agent import syscalls
from blockferry_agent.filedevice import FileDevice
from blockferry_agent.ports import Extent, UnsupportedZeroMethod, ZeroMethod
from tests import layouts


def test_what_was_opened_for_reading_is_not_written(tmp_path: Path) -> None:
    path = layouts.make_file(tmp_path / "volume", "D")
    with FileDevice(path, writable=False, is_block=False) as device:
        with pytest.raises(UsageError) as write:
            device.write_at(0, b"x")
        with pytest.raises(UsageError) as zero:
            device.zero_at(0, 1, ZeroMethod.WRITE)
        for caught in (write, zero):
            assert caught.value.reason == "DEVICE_OPENED_READ_ONLY"
    assert path.read_bytes() == layouts.content("D")


@pytest.mark.parametrize("direct", [True, False], ids=["direct", "buffered"])
def test_a_short_tail_is_read_whole(tmp_path: Path, direct: bool) -> None:
    path = layouts.make_file(tmp_path / "volume", "DRD", tail_bytes=777)
    expected = layouts.content("DRD", tail_bytes=777)
    with (
        FileDevice(path, writable=False, is_block=False, direct=direct) as device,
        mmap.mmap(-1, CHUNK_BYTES) as memory,
        memoryview(memory) as page,
    ):
        assert device.size_bytes == 2 * CHUNK_BYTES + 777
        device.read_into(2 * CHUNK_BYTES, page[:777])
        assert page[:777] == expected[2 * CHUNK_BYTES :]
        device.read_into(CHUNK_BYTES, page)
        assert page == expected[CHUNK_BYTES : 2 * CHUNK_BYTES]


@pytest.mark.parametrize("direct", [True, False], ids=["direct", "buffered"])
def test_a_file_shortened_under_us_is_an_error(tmp_path: Path, direct: bool) -> None:
    path = layouts.make_file(tmp_path / "volume", "DD")
    with (
        FileDevice(path, writable=False, is_block=False, direct=direct) as device,
        mmap.mmap(-1, CHUNK_BYTES) as memory,
        memoryview(memory) as page,
    ):
        os.truncate(path, CHUNK_BYTES + 4096)
        with pytest.raises(DeviceError) as caught:
            device.read_into(CHUNK_BYTES, page)
        assert caught.value.reason == "DEVICE_IO_READ"
        assert caught.value.metadata["offset_bytes"] == str(CHUNK_BYTES + 4096)


LAYOUTS = ["D", "-", "D-", "-D", "DD0D-0", "--DR--0-", "0"]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_holes_of_a_file_are_told(tmp_path: Path, layout: str) -> None:
    device = FileDevice(
        layouts.make_file(tmp_path / "volume", layout), writable=False, is_block=False
    )
    told = "".join(
        ("-" if extent.hole else "D") * ((extent.end_bytes - extent.start_bytes) // CHUNK_BYTES)
        for extent in device.extents(0, device.size_bytes)
    )
    assert told == "".join("-" if letter == "-" else "D" for letter in layout)
    device.close()


def test_part_of_a_hole_is_a_hole(tmp_path: Path) -> None:
    device = FileDevice(
        layouts.make_file(tmp_path / "volume", "D--D"), writable=False, is_block=False
    )
    assert list(device.extents(CHUNK_BYTES + 10, 2 * CHUNK_BYTES + 5)) == [
        Extent(CHUNK_BYTES + 10, 2 * CHUNK_BYTES + 5, hole=True)
    ]
    device.close()


def test_punching_frees_space(tmp_path: Path) -> None:
    path = layouts.make_file(tmp_path / "volume", "DDDD")
    with FileDevice(path, writable=True, is_block=False) as device:
        device.flush()
        before = path.stat().st_blocks
        try:
            device.zero_at(0, 2 * CHUNK_BYTES, ZeroMethod.PUNCH_HOLE)
        except UnsupportedZeroMethod:
            pytest.skip("this filesystem has no holes")
        device.flush()
        assert path.stat().st_blocks <= before - 2 * MIB // 512
        assert path.stat().st_size == 4 * CHUNK_BYTES


@pytest.mark.parametrize("number", [errno.EOPNOTSUPP, errno.EREMOTEIO])
def test_a_method_that_is_not_there_is_dropped_for_good(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    calls = []

    def refuse(fd: int, mode: int, offset: int, length: int) -> None:
        calls.append(mode)
        raise OSError(number, "not here")

    monkeypatch.setattr(syscalls, "fallocate", refuse)
    path = layouts.make_file(tmp_path / "volume", "D")
    with FileDevice(path, writable=True, is_block=False) as device:
        for _ in range(3):
            with pytest.raises(UnsupportedZeroMethod):
                device.zero_at(0, CHUNK_BYTES, ZeroMethod.PUNCH_HOLE)
        assert len(calls) == 1
        assert device.zero_methods == (ZeroMethod.ZERO_RANGE, ZeroMethod.WRITE)
        device.zero_at(0, CHUNK_BYTES, ZeroMethod.WRITE)
    assert path.read_bytes() == bytes(CHUNK_BYTES)


def test_a_failing_method_is_an_error_and_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(fd: int, mode: int, offset: int, length: int) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(syscalls, "fallocate", fail)
    path = layouts.make_file(tmp_path / "volume", "D")
    with FileDevice(path, writable=True, is_block=False) as device:
        with pytest.raises(DeviceError) as caught:
            device.zero_at(0, CHUNK_BYTES, ZeroMethod.PUNCH_HOLE)
        assert caught.value.reason == "DEVICE_IO_ZERO"
        assert ZeroMethod.PUNCH_HOLE in device.zero_methods


def test_unaligned_memory_is_read_through_the_cache_and_stays_possible(tmp_path: Path) -> None:
    path = layouts.make_file(tmp_path / "volume", "RR")
    with FileDevice(path, writable=False, is_block=False) as device:
        before = device.reads_direct
        buffer = bytearray(CHUNK_BYTES + 1)
        device.read_into(0, memoryview(buffer)[1:])
        assert buffer[1:] == layouts.chunk("RR", 0)
        assert device.reads_direct == before


def test_reading_leaves_nothing_in_the_page_cache(tmp_path: Path) -> None:
    path = layouts.make_file(tmp_path / "volume", "RRRR")
    with path.open("r+b") as file:
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    for direct in (True, False):
        with FileDevice(path, writable=False, is_block=False, direct=direct) as device:
            for index in range(4):
                device.read_into(index * CHUNK_BYTES, memoryview(bytearray(CHUNK_BYTES)))
        # RWF_NOWAIT reads only what is in the cache.
        with path.open("rb") as file:
            try:
                cached = os.preadv(file.fileno(), [bytearray(4096)], CHUNK_BYTES, os.RWF_NOWAIT)
            except BlockingIOError:
                cached = 0
            except OSError as error:
                pytest.skip(f"cannot ask this filesystem: {error}")
        assert cached == 0


def test_writeback_is_only_advice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(fd: int, offset: int, length: int) -> None:
        raise OSError(38, "Function not implemented")

    monkeypatch.setattr(syscalls, "start_writeback", refuse)
    path = layouts.make_file(tmp_path / "volume", "D")
    with FileDevice(path, writable=True, is_block=False) as device:
        device.write_at(0, b"x" * 4096)
        device.start_writeback(0, 4096)
        device.flush()


def test_a_walk_in_steps_asks_for_each_run_of_data_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = layouts.make_file(tmp_path / "volume", "-" * 8 + "D" * 16 + "-" * 8)
    asked: list[int] = []
    seek = os.lseek

    def counted(fd: int, place: int, whence: int) -> int:
        asked.append(whence)
        return seek(fd, place, whence)

    with FileDevice(path, writable=False, is_block=False) as device:
        monkeypatch.setattr(os, "lseek", counted)
        steps = [
            extent
            for at in range(0, 32 * CHUNK_BYTES, CHUNK_BYTES)
            for extent in device.extents(at, at + CHUNK_BYTES)
        ]
    assert [step.hole for step in steps] == [True] * 8 + [False] * 16 + [True] * 8
    assert asked.count(os.SEEK_HOLE) == 1
    assert asked.count(os.SEEK_DATA) == 8 + 1 + 8
