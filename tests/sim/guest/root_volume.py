"""A volume that an instance boots from: ext4 in the one partition of its disk.

The root file system is really in there: an instance whose volume lost some of it does not
boot, or not to the end. To mount it takes root on the host, and loop devices.
"""

from __future__ import annotations

import os
import struct
import subprocess
import tempfile
from pathlib import Path

from tests.sim.guest import disk
from tests.sim.guest.mounts import Image
from tests.sim.guest.programs import make_programs

PARTITION_BYTES = 1 << 20
"""Where the partition begins, as partitioning tools have it."""
SECTOR_BYTES = 512
_ENTRY, _SIGNATURE = 446, 510
_ACTIVE, _LINUX, _NO_CHS = 0x80, 0x83, b"\xfe\xff\xff"
_FEW = ("-O", "^has_journal", "-N", "16384")
"""As little to write as a file system of that size can have."""
_SECONDS = 60


def write(path: Path, image: Image) -> None:
    """Write `image` onto the disk that the file `path` is.

    Raises:
        OSError, subprocess.SubprocessError: e2fsprogs are missing, or refuse.
    """
    make_programs(image.programs)
    size_bytes = path.stat().st_size
    with tempfile.TemporaryDirectory() as directory:
        root = Path(directory) / "root"
        root.mkdir()
        disk.make(root, image)
        options = f"offset={PARTITION_BYTES},root_owner=0:0,lazy_itable_init=0"
        blocks = f"{(size_bytes - PARTITION_BYTES) >> 10}k"
        _run("mke2fs", *_FEW, "-q", "-F", "-t", "ext4", "-E", options, "-d", root, path, blocks)
    sectors = PARTITION_BYTES // SECTOR_BYTES, (size_bytes - PARTITION_BYTES) // SECTOR_BYTES
    with path.open("r+b") as file:
        file.seek(_ENTRY)
        file.write(struct.pack("<B3sB3sII", _ACTIVE, _NO_CHS, _LINUX, _NO_CHS, *sectors))
        file.seek(_SIGNATURE)
        file.write(b"\x55\xaa")


def mount(disk_path: Path, target: Path) -> None:
    """Mount the partition; its loop device goes with the mount.

    Raises:
        OSError, subprocess.SubprocessError: there is no such file system, or no leave.
    """
    _run("mount", "-t", "ext4", "-o", f"loop,offset={PARTITION_BYTES}", disk_path, target)


def _run(*command: str | Path) -> None:
    path = f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin"
    subprocess.run(command, env={"PATH": path}, check=True, timeout=_SECONDS)
