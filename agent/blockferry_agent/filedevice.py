"""A block device or regular file of this machine, behind the BlockDevice port.

Rules:
* Reads go past the page cache (O_DIRECT) where offset, length and memory are
  aligned; the kernel writes dirty pages of the range out first, so what is read
  is on the medium. Others are buffered, and the pages dropped again.
* Writes are buffered: writeback is started early and `flush` is fdatasync.
* Who writes is alone: O_EXCL on block devices, a lock on regular files.
"""

from __future__ import annotations

import errno
import fcntl
import os
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Final

from blockferry.errors import DeviceError, UsageError
from blockferry.limits import MIB
from blockferry_agent import syscalls
from blockferry_agent.ports import Extent, UnsupportedZeroMethod, ZeroMethod
from blockferry_agent.refusal import refused

_DIRECT_ALIGNMENT: Final = 4096
"""Enough for every device and filesystem: none has larger logical blocks."""

_ZEROS: Final = bytes(MIB)

_EXCLUSIVE_TRIES: Final = 4
_EXCLUSIVE_PAUSE_SECONDS: Final = 0.025

_UNSUPPORTED: Final = frozenset(
    {errno.EOPNOTSUPP, errno.ENOSYS, errno.ENOTTY, errno.EINVAL, errno.ENODEV, errno.EREMOTEIO}
)
"""Answers that mean "not here" rather than "it failed". EINVAL is what some
drivers give for a mode they do not know; arguments of ours are checked before.
EREMOTEIO is the kernel's word for a SCSI target that refuses the command itself."""

_FALLOCATE_MODES: Final = {
    ZeroMethod.PUNCH_HOLE: syscalls.FALLOC_FL_PUNCH_HOLE | syscalls.FALLOC_FL_KEEP_SIZE,
    ZeroMethod.ZERO_RANGE: syscalls.FALLOC_FL_ZERO_RANGE | syscalls.FALLOC_FL_KEEP_SIZE,
}


class FileDevice:
    """A block device or regular file; see the port for what each method promises."""

    def __init__(self, path: Path, *, writable: bool, is_block: bool, direct: bool = True) -> None:
        """Open `path` without asking who uses it, as `open_device` does.

        Args:
            path: The device or file.
            writable: Whether it will be written; it is held exclusively then.
            is_block: Whether it is a block device.
            direct: Whether to try reading past the page cache.
        """
        self._path = str(path)
        self._writable = writable
        self._is_block = is_block
        with ExitStack() as undo:
            self._fd = _open(path, writable=writable, is_block=is_block)
            undo.callback(os.close, self._fd)
            self._size = os.lseek(self._fd, 0, os.SEEK_END)
            self._block = syscalls.logical_block_bytes(self._fd) if is_block else 1
            if writable and is_block and syscalls.is_read_only(self._fd):
                raise OSError(errno.EROFS, os.strerror(errno.EROFS))
            self._direct = _open_direct(path) if direct else -1
            undo.pop_all()
        self._reads_direct = self._direct >= 0
        methods = [*_FALLOCATE_MODES, *([ZeroMethod.ZERO_OUT] if is_block else [])]
        self._methods = (*methods, ZeroMethod.WRITE)
        self._data_run = (0, 0)
        self._lock = threading.Lock()

    @property
    def path(self) -> str:
        """The path it was opened by."""
        return self._path

    @property
    def size_bytes(self) -> int:
        """Size when it was opened."""
        return self._size

    @property
    def block_bytes(self) -> int:
        """Logical block size; 1 for regular files."""
        return self._block

    @property
    def zero_methods(self) -> tuple[ZeroMethod, ...]:
        """Methods not yet found unsupported."""
        return self._methods

    @property
    def reads_direct(self) -> bool:
        """Whether aligned reads still go past the page cache."""
        return self._reads_direct

    def read_into(self, offset_bytes: int, buffer: memoryview) -> None:
        """See BlockDevice.read_into."""
        self._check_range(offset_bytes, len(buffer))
        if self._reads_direct and _is_aligned(offset_bytes, buffer):
            done = self._read_direct(offset_bytes, buffer)
        else:
            done = 0
        if done < len(buffer):
            # Released here: a slice kept by a traceback would pin the lender's memory.
            with buffer[done:] as rest:
                self._read_buffered(offset_bytes + done, rest)

    def write_at(self, offset_bytes: int, data: memoryview | bytes) -> None:
        """See BlockDevice.write_at."""
        self._check_range(offset_bytes, len(data))
        self._check_writable()
        done = 0
        with memoryview(data) as view:
            try:
                while done < len(view):
                    done += os.pwrite(self._fd, view[done:], offset_bytes + done)
            except OSError as error:
                raise refused("write", self._path, error, offset_bytes + done) from error

    def zero_at(self, offset_bytes: int, length_bytes: int, method: ZeroMethod) -> None:
        """See BlockDevice.zero_at."""
        self._check_range(offset_bytes, length_bytes)
        self._check_writable()
        if method is ZeroMethod.WRITE:
            self._write_zeros(offset_bytes, length_bytes)
            return
        if method not in self._methods:
            raise UnsupportedZeroMethod(method)
        try:
            if method is ZeroMethod.ZERO_OUT:
                syscalls.zero_out(self._fd, offset_bytes, length_bytes)
            else:
                mode = _FALLOCATE_MODES[method]
                syscalls.fallocate(self._fd, mode, offset_bytes, length_bytes)
        except OSError as error:
            if error.errno in _UNSUPPORTED:
                self._methods = tuple(other for other in self._methods if other is not method)
                raise UnsupportedZeroMethod(method) from error
            raise refused("zero", self._path, error, offset_bytes) from error

    def extents(self, start_bytes: int, end_bytes: int) -> Iterator[Extent]:
        """See BlockDevice.extents; only regular files tell their holes."""
        if not 0 <= start_bytes <= end_bytes <= self._size:
            raise self._out_of_range(start_bytes, end_bytes - start_bytes)
        if self._is_block:
            return iter([Extent(start_bytes, end_bytes, False)] if start_bytes < end_bytes else [])
        return self._file_extents(start_bytes, end_bytes)

    def start_writeback(self, offset_bytes: int, length_bytes: int) -> None:
        """See BlockDevice.start_writeback; errors show up in `flush`."""
        try:
            syscalls.start_writeback(self._fd, offset_bytes, length_bytes)
        except OSError:
            # An advice only; where the kernel cannot follow it, flush does the work.
            return

    def flush(self) -> None:
        """See BlockDevice.flush."""
        try:
            os.fdatasync(self._fd)
        except OSError as error:
            raise refused("flush", self._path, error) from error

    def close(self) -> None:
        """See BlockDevice.close."""
        with self._lock:
            for fd in (self._fd, self._direct):
                if fd >= 0:
                    os.close(fd)
            self._fd = self._direct = -1

    def __enter__(self) -> FileDevice:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _read_direct(self, offset_bytes: int, buffer: memoryview) -> int:
        """Read what the kernel gives past the cache; return how much that was."""
        try:
            return os.preadv(self._direct, [buffer], offset_bytes)
        except OSError as error:
            if error.errno != errno.EINVAL:
                raise refused("read", self._path, error, offset_bytes) from error
            # The filesystem opens files so but cannot read them, or wants more alignment.
            self._reads_direct = False
        return 0

    def _read_buffered(self, offset_bytes: int, buffer: memoryview) -> None:
        if self._writable:
            # What is to be proven lies on the medium, not in clean pages of ours.
            self._drop_cache(offset_bytes, len(buffer))
        done = 0
        while done < len(buffer):
            try:
                got = os.preadv(self._fd, [buffer[done:]], offset_bytes + done)
            except OSError as error:
                raise refused("read", self._path, error, offset_bytes + done) from error
            if not got:
                raise DeviceError(
                    "DEVICE_IO_READ",
                    f"{self._path} ended at byte {offset_bytes + done} but had {self._size} when "
                    "it was opened. Somebody shortened it; start again.",
                    path=self._path,
                    offset_bytes=offset_bytes + done,
                )
            done += got
        self._drop_cache(offset_bytes, len(buffer))

    def _drop_cache(self, offset_bytes: int, length_bytes: int) -> None:
        os.posix_fadvise(self._fd, offset_bytes, length_bytes, os.POSIX_FADV_DONTNEED)

    def _write_zeros(self, offset_bytes: int, length_bytes: int) -> None:
        with memoryview(_ZEROS) as zeros:
            for start in range(0, length_bytes, len(zeros)):
                self.write_at(offset_bytes + start, zeros[: length_bytes - start])

    def _file_extents(self, start_bytes: int, end_bytes: int) -> Iterator[Extent]:
        place = start_bytes
        while place < end_bytes:
            first, last = self._next_data(place, end_bytes)
            if first > place:
                yield Extent(place, first, hole=True)
            if first < last:
                yield Extent(first, last, hole=False)
            place = last

    def _next_data(self, place: int, end_bytes: int) -> tuple[int, int]:
        """The next run of data that begins in [place, end), cut to it; empty at the end.

        What was data stays so here: reading a hole is never wrong. To ask the kernel again
        would cost as much as the run is long, with every step of who walks in steps (tmpfs
        goes from page to page, under the lock that writers need).
        """
        first, last = self._data_run
        if not first <= place < last:
            first = self._seek(place, os.SEEK_DATA)
            if first >= end_bytes:
                return end_bytes, end_bytes
            last = self._seek(first, os.SEEK_HOLE)
            self._data_run = first, last
        return max(first, place), min(last, end_bytes)

    def _seek(self, place: int, whence: int) -> int:
        try:
            return os.lseek(self._fd, place, whence)
        except OSError as error:
            if error.errno == errno.ENXIO:
                return self._size
            raise refused("read", self._path, error, place) from error

    def _check_range(self, offset_bytes: int, length_bytes: int) -> None:
        if length_bytes < 1 or offset_bytes < 0 or offset_bytes + length_bytes > self._size:
            raise self._out_of_range(offset_bytes, length_bytes)

    def _out_of_range(self, offset_bytes: int, length_bytes: int) -> UsageError:
        return UsageError(
            "OUT_OF_RANGE",
            f"{length_bytes} bytes at {offset_bytes} are not within {self._path}, "
            f"which has {self._size}.",
            path=self._path,
            offset_bytes=offset_bytes,
            length_bytes=length_bytes,
            size_bytes=self._size,
        )

    def _check_writable(self) -> None:
        if not self._writable:
            raise UsageError(
                "DEVICE_OPENED_READ_ONLY",
                f"{self._path} was opened for reading; open it with writable=True.",
                path=self._path,
            )


def _open(path: Path, *, writable: bool, is_block: bool) -> int:
    if not is_block:
        fd = os.open(path, os.O_RDWR if writable else os.O_RDONLY)
        _lock(fd, fcntl.LOCK_EX if writable else fcntl.LOCK_SH)
        return fd
    if writable:
        return _open_exclusive(path, os.O_RDWR)
    # Shows whether another namespace holds it, then lets other readers in again.
    os.close(_open_exclusive(path, os.O_RDONLY))
    return os.open(path, os.O_RDONLY)


def _open_exclusive(path: Path, mode: int) -> int:
    """Open a block device that nobody else holds.

    Others look as briefly as we do before reading, so one refusal proves nothing.
    """
    for _ in range(_EXCLUSIVE_TRIES):
        try:
            return os.open(path, mode | os.O_EXCL)
        except OSError as error:
            if error.errno != errno.EBUSY:
                raise
        time.sleep(_EXCLUSIVE_PAUSE_SECONDS)
    return os.open(path, mode | os.O_EXCL)


def _lock(fd: int, kind: int) -> None:
    """Keep writers off a regular file that is in our hands, as O_EXCL does on a device."""
    try:
        fcntl.flock(fd, kind | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(fd)
        raise OSError(errno.EBUSY, os.strerror(errno.EBUSY)) from error
    except OSError:
        # Some network filesystems have no locks; then nothing is kept off.
        return


def _open_direct(path: Path) -> int:
    try:
        return os.open(path, os.O_RDONLY | os.O_DIRECT)
    except OSError:
        return -1


def _is_aligned(offset_bytes: int, buffer: memoryview) -> bool:
    return not (offset_bytes | len(buffer) | syscalls.address_of(buffer)) % _DIRECT_ALIGNMENT
