"""What a refusal of the kernel during input or output means to us."""

import errno
import os
from pathlib import Path
from typing import Final, Literal

from blockferry.errors import BlockferryError, CapacityError, DeviceError

_FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT})

Operation = Literal["open", "read", "write", "zero", "flush"]


def refused(
    operation: Operation, path: str | Path, error: OSError, offset_bytes: int | None = None
) -> BlockferryError:
    """Return what to raise `from error`.

    Args:
        operation: What was tried; gives the reason, `DEVICE_IO_WRITE` for example.
        path: What it was tried on.
        error: The kernel's answer.
        offset_bytes: Where, if the operation has a place.

    Returns:
        CapacityError NO_SPACE when the storage or a quota is full, else
        DeviceError; both with `path`, `errno` and, if given, `offset_bytes`.
    """
    number = error.errno or errno.EIO
    where = {} if offset_bytes is None else {"offset_bytes": offset_bytes}
    place = "" if offset_bytes is None else f" at byte {offset_bytes}"
    text = f"Could not {operation} {path}{place}: {os.strerror(number)}"
    if number in _FULL:
        return CapacityError(
            "NO_SPACE", f"{text}. Make room, then resume.", path=path, errno=number, **where
        )
    return DeviceError(
        f"DEVICE_IO_{operation.upper()}",
        f"{text}. Look into the kernel log of that machine, then resume.",
        path=path,
        errno=number,
        **where,
    )
