"""`lsblk` of an instance, as much of it as scripts use: raw output of named columns.

    lsblk [-dnr] -o COLUMN,… [DEVICE]…

Columns: NAME, SERIAL, and PKNAME, the disk that a device is a part of. An instance's disks
are files, so what was mounted from one is a loop device: the kernel tells of which file.
Copied into instances as it is; it needs nothing but Python.
"""

import fcntl
import re
import struct
import sys
from pathlib import Path

LOOP_GET_STATUS64 = 0x4C05
_LOOP_INFO_BYTES = 232


def disks() -> list[str]:
    """Names of all disks."""
    return sorted(entry.name for entry in Path("/sys/block").iterdir())


def serial(name: str) -> str:
    """What the disk says of itself; empty for what is no disk."""
    try:
        return Path(f"/sys/block/{name}/serial").read_text("ascii").strip()
    except OSError:
        return ""


def parent(name: str) -> str:
    """The disk whose bytes the loop device shows; empty for a disk."""
    if not name.startswith("loop"):
        return ""
    with Path(f"/dev/{name}").open("rb") as device:
        told = fcntl.ioctl(device, LOOP_GET_STATUS64, bytes(_LOOP_INFO_BYTES))
    behind = struct.unpack_from("=QQ", told)
    for disk in disks():
        found = Path(f"/dev/{disk}").stat()
        if (found.st_dev, found.st_ino) == behind:
            return disk
    return ""


def main(words: list[str]) -> int:
    """Print a line a device."""
    columns: list[str] = []
    names: list[str] = []
    rest = iter(words)
    for word in rest:
        if re.fullmatch("-[dnr]*o", word):
            columns = next(rest, "").split(",")
        elif not word.startswith("-"):
            names.append(Path(word).name)
    for name in names or disks():
        told = {"NAME": name, "SERIAL": serial(name), "PKNAME": parent(name)}
        print(*(told[column] for column in columns))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
