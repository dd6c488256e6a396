"""Opens what a person or a volume's serial named, once it is shown to be free.

What is mounted, swap, held or written by somebody else is refused, for reading
too: what is read from under a mounted filesystem is no consistent state of it.
"""

import errno
import os
import stat
from pathlib import Path

from blockferry.errors import (
    BlockferryError,
    ForbiddenError,
    NotFoundError,
    PreconditionError,
)
from blockferry_agent.filedevice import FileDevice
from blockferry_agent.occupancy import in_use_reason, same_device
from blockferry_agent.ports import BlockDevice
from blockferry_agent.refusal import refused

__all__ = ["open_device", "same_device"]


def open_device(path: Path, *, writable: bool) -> BlockDevice:
    """Open a block device or regular file, following symbolic links.

    Args:
        path: What a person or a volume's serial named.
        writable: Whether it will be written; such a device is held exclusively.

    Raises:
        NotFoundError: DEVICE_NOT_FOUND.
        ForbiddenError: DEVICE_PERMISSION.
        PreconditionError: DEVICE_IS_DIRECTORY, DEVICE_KIND (neither block device
            nor file), DEVICE_IN_USE, DEVICE_READ_ONLY.
        DeviceError: DEVICE_IO_OPEN, anything else the kernel said.
    """
    try:
        kind = _check_kind(path)
        reason = in_use_reason(path)
        if reason:
            raise _in_use(path, reason)
        return FileDevice(path, writable=writable, is_block=kind == stat.S_IFBLK)
    except OSError as error:
        raise _not_opened(path, error) from error


def _check_kind(path: Path) -> int:
    kind = stat.S_IFMT(path.stat().st_mode)
    if kind == stat.S_IFDIR:
        raise PreconditionError(
            "DEVICE_IS_DIRECTORY",
            f"{path} is a directory; name a block device or a file.",
            path=path,
        )
    if kind not in (stat.S_IFBLK, stat.S_IFREG):
        raise PreconditionError(
            "DEVICE_KIND",
            f"{path} is neither a block device nor a regular file; name one of those.",
            path=path,
        )
    return kind


def _in_use(path: Path, reason: str) -> PreconditionError:
    return PreconditionError(
        "DEVICE_IN_USE",
        f"{path} is in use: {reason}. Release it first.",
        path=path,
        in_use_reason=reason,
    )


def _not_opened(path: Path, error: OSError) -> BlockferryError:
    if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ENXIO, errno.ENODEV, errno.ELOOP):
        return NotFoundError(
            "DEVICE_NOT_FOUND", f"There is no device or file {path}; check the name.", path=path
        )
    if error.errno in (errno.EACCES, errno.EPERM):
        return ForbiddenError(
            "DEVICE_PERMISSION",
            f"{path} may not be opened by user {os.geteuid()}; run as root or change its mode.",
            path=path,
        )
    if error.errno in (errno.EBUSY, errno.ETXTBSY):
        return _in_use(path, "another program holds it")
    if error.errno == errno.EROFS:
        return PreconditionError(
            "DEVICE_READ_ONLY",
            f"{path} is read-only; name a device that can be written.",
            path=path,
        )
    return refused("open", path, error)
