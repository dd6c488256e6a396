"""Files and block devices of this machine as volumes."""

import os
import stat
from pathlib import Path

from blockferry.errors import ForbiddenError, NotFoundError, PreconditionError
from blockferry_controller.clouds.port import Volume


def find(path: Path) -> Volume:
    """The volume at `path`, symbolic links followed.

    Raises:
        NotFoundError: VOLUME_NOT_FOUND.
        PreconditionError: DEVICE_IS_DIRECTORY, DEVICE_KIND.
        ForbiddenError: DEVICE_PERMISSION.
    """
    try:
        status = path.stat()
        if stat.S_ISDIR(status.st_mode):
            raise PreconditionError(
                "DEVICE_IS_DIRECTORY",
                f"{path} is a directory; name a file or block device",
                path=path,
            )
        if not (stat.S_ISREG(status.st_mode) or stat.S_ISBLK(status.st_mode)):
            raise PreconditionError(
                "DEVICE_KIND", f"{path} is neither a regular file nor a block device", path=path
            )
        size = _size(path)
    except FileNotFoundError as error:
        raise NotFoundError("VOLUME_NOT_FOUND", f"{path} does not exist", path=path) from error
    except NotADirectoryError as error:
        raise NotFoundError(
            "VOLUME_NOT_FOUND", f"{path} does not exist: a parent is not a directory", path=path
        ) from error
    except PermissionError as error:
        raise ForbiddenError(
            "DEVICE_PERMISSION",
            f"{path} may not be read by this user; try as root or change its mode",
            path=path,
        ) from error
    return Volume(
        id=identity(status), name=str(path), description="", size_bytes=size,
        status="available", volume_type="", availability_zone="", bootable=False,
        read_only=False, encrypted=False, multiattach=False, metadata={}, image_metadata={},
        attachments=(), path=str(path.resolve()),
    )  # fmt: skip


def make(path: Path, size_bytes: int) -> None:
    """Make a sparse file of `size_bytes`; its directory must exist.

    Raises:
        NotFoundError: VOLUME_PARENT_NOT_FOUND.
        ForbiddenError: DEVICE_PERMISSION.
    """
    try:
        with path.open("xb") as file:
            file.truncate(size_bytes)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise NotFoundError(
            "VOLUME_PARENT_NOT_FOUND",
            f"{path} cannot be made: {path.parent} is not an existing directory",
            path=path,
        ) from error
    except PermissionError as error:
        raise ForbiddenError(
            "DEVICE_PERMISSION", f"{path.parent} may not be written by this user", path=path
        ) from error


def identity(status: os.stat_result) -> str:
    """What tells one file or device from every other, by whatever name it is reached.

    A loop device is its backing file: copying one onto the other is a copy onto itself.
    """
    if not stat.S_ISBLK(status.st_mode):
        return f"file:{status.st_dev}:{status.st_ino}"
    number = f"{os.major(status.st_rdev)}:{os.minor(status.st_rdev)}"
    backing = Path(f"/sys/dev/block/{number}/loop/backing_file")
    try:
        return identity(Path(backing.read_text(encoding="utf-8").strip()).stat())
    except OSError:
        return f"block:{number}"


def _size(path: Path) -> int:
    """Size in bytes; seeking to the end tells it for block devices, too."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return os.lseek(descriptor, 0, os.SEEK_END)
    finally:
        os.close(descriptor)
