import ctypes
import errno
import mmap
from pathlib import Path

import pytest

from blockferry_agent import syscalls


def test_the_kernels_answer_is_an_oserror(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"x")
    with (tmp_path / "file").open("rb") as file, pytest.raises(OSError, match="Bad file") as caught:
        syscalls.fallocate(file.fileno(), syscalls.FALLOC_FL_KEEP_SIZE, 0, 1)
    assert caught.value.errno == errno.EBADF


def test_offsets_beyond_4_gib_arrive_whole(tmp_path: Path) -> None:
    with (tmp_path / "file").open("wb") as file:
        try:
            syscalls.fallocate(file.fileno(), 0, (5 << 30) + 4096, 4096)
        except OSError as error:
            pytest.skip(f"this filesystem has no fallocate: {error}")
    assert (tmp_path / "file").stat().st_size == (5 << 30) + 8192


def test_a_libc_without_the_call_is_a_kernel_without_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(syscalls, "_libc", object())
    with pytest.raises(OSError, match="not implemented") as caught:
        syscalls.start_writeback(0, 0, 1)
    assert caught.value.errno == errno.ENOSYS


def test_ioctls_of_block_devices_are_refused_by_files(tmp_path: Path) -> None:
    with (tmp_path / "file").open("wb") as file:
        for ask in (syscalls.logical_block_bytes, syscalls.is_read_only):
            with pytest.raises(OSError, match="ioctl") as caught:
                ask(file.fileno())
            assert caught.value.errno == errno.ENOTTY


def test_mapped_memory_begins_at_a_page() -> None:
    with mmap.mmap(-1, 8192) as memory, memoryview(memory) as view, view[1:] as rest:
        assert syscalls.address_of(view) % mmap.PAGESIZE == 0
        assert syscalls.address_of(rest) == syscalls.address_of(view) + 1
        assert ctypes.string_at(syscalls.address_of(view), 2) == bytes(2)
