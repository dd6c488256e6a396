"""Calls of the Linux kernel that Python's `os` does not have.

Each raises OSError with the kernel's errno, as `os` would, and releases the GIL.
Numbers of ioctls are those of linux/fs.h on every 64-bit machine we run on.
"""

import ctypes
import errno
import fcntl
import os
import struct
from typing import Final

FALLOC_FL_KEEP_SIZE: Final = 0x01
FALLOC_FL_PUNCH_HOLE: Final = 0x02
FALLOC_FL_ZERO_RANGE: Final = 0x10

_SYNC_FILE_RANGE_WRITE: Final = 2
_BLKROGET: Final = 0x125E
_BLKSSZGET: Final = 0x1268
_BLKZEROOUT: Final = 0x127F

_libc: Final = ctypes.CDLL(None, use_errno=True)


def fallocate(fd: int, mode: int, offset_bytes: int, length_bytes: int) -> None:
    """Change the space of [offset, offset + length) by `mode`, flags FALLOC_FL_…."""
    _call("fallocate", fd, ctypes.c_int(mode), _off(offset_bytes), _off(length_bytes))


def start_writeback(fd: int, offset_bytes: int, length_bytes: int) -> None:
    """Begin to write out the dirty pages of a range, without waiting for them."""
    _call(
        "sync_file_range",
        fd,
        _off(offset_bytes),
        _off(length_bytes),
        ctypes.c_uint(_SYNC_FILE_RANGE_WRITE),
    )


def zero_out(fd: int, offset_bytes: int, length_bytes: int) -> None:
    """Zero a range of a block device, offloaded where it can; in whole sectors."""
    fcntl.ioctl(fd, _BLKZEROOUT, struct.pack("=QQ", offset_bytes, length_bytes))


def logical_block_bytes(fd: int) -> int:
    """Return the logical block size of a block device: 512 or 4096, mostly."""
    return _read_int(fd, _BLKSSZGET)


def is_read_only(fd: int) -> bool:
    """Whether the kernel refuses writes to a block device."""
    return _read_int(fd, _BLKROGET) != 0


def address_of(buffer: memoryview) -> int:
    """Return where the memory of a writable buffer (at least 1 byte) begins."""
    return ctypes.addressof(ctypes.c_char.from_buffer(buffer))


def _read_int(fd: int, request: int) -> int:
    answer: int = struct.unpack("=i", fcntl.ioctl(fd, request, bytes(4)))[0]
    return answer


def _off(value: int) -> ctypes.c_int64:
    return ctypes.c_int64(value)


def _call(name: str, fd: int, *arguments: ctypes.c_int64 | ctypes.c_int | ctypes.c_uint) -> None:
    function = getattr(_libc, name, None)
    if function is None:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))
    while function(ctypes.c_int(fd), *arguments) != 0:
        number = ctypes.get_errno()
        if number != errno.EINTR:
            raise OSError(number, os.strerror(number))
