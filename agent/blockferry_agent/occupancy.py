"""Who else uses a block device or file, and which of them share storage.

A device is in use when it, one of its partitions or the disk under it
* is mounted anywhere that this process can see, or is swap,
* or is part of something stacked on it: LVM, LUKS, RAID, multipath.
A regular file is in use when it is swap or when a loop device on it is in use.

What other mount namespaces hold is not in these files; opening with O_EXCL is
the kernel's own word on it, see blockdev.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

_PROC: Final = Path("/proc")
_SYS: Final = Path("/sys")
_OCTAL: Final = re.compile(r"\\([0-7]{3})")


@dataclass(frozen=True, slots=True)
class _Mount:
    device: str
    source: str
    point: str


def in_use_reason(path: Path, *, proc_root: Path = _PROC, sys_root: Path = _SYS) -> str:
    """Say why `path` must not be touched, as the end of a sentence; empty when free.

    Args:
        path: A block device or regular file; any other kind is free.
        proc_root: Where procfs is mounted.
        sys_root: Where sysfs is mounted.

    Raises:
        OSError: `path` does not exist or may not be looked at.
    """
    facts = path.stat()
    if stat.S_ISBLK(facts.st_mode):
        return device_in_use_reason(facts.st_rdev, proc_root=proc_root, sys_root=sys_root)
    if stat.S_ISREG(facts.st_mode):
        return _file_reason(path, proc_root, sys_root)
    return ""


def same_device(first: Path, second: Path) -> bool:
    """Whether writing to one may change the other.

    True for one file or device under two names, a loop device and the file (or
    another loop device) it is backed by, a disk and its partition. False when
    either does not exist.
    """
    try:
        one, other = _storage(first), _storage(second)
    except OSError:
        return False
    return bool(one[0] & (other[0] | other[1]) or other[0] & one[1])


def device_in_use_reason(rdev: int, *, proc_root: Path = _PROC, sys_root: Path = _SYS) -> str:
    """Say why the block device of number `rdev` must not be touched; empty when free."""
    nodes = _family(rdev, sys_root)
    names = {f"{os.major(node)}:{os.minor(node)}" for node in nodes}
    for mount in _mounts(proc_root):
        if mount.device in names or _rdev(mount.source) in nodes:
            root = "; it is the root disk" if mount.point == "/" else ""
            return f"{mount.source} is mounted on {mount.point}{root}"
    for swap in _swaps(proc_root):
        if _rdev(swap) in nodes:
            return f"{swap} is used as swap"
    for node in nodes:
        for holder in _names(_node(node, sys_root) / "holders"):
            return f"{holder} (LVM, LUKS, RAID or multipath) is stacked on it"
    return ""


def _file_reason(path: Path, proc_root: Path, sys_root: Path) -> str:
    for swap in _swaps(proc_root):
        if _same_file(Path(swap), path):
            return "it is used as swap"
    for loop, backing in _loops(sys_root):
        if _same_file(backing, path):
            reason = device_in_use_reason(loop, proc_root=proc_root, sys_root=sys_root)
            if reason:
                return f"the loop device on it is in use: {reason}"
    return ""


def _family(rdev: int, sys_root: Path) -> set[int]:
    """The device itself, its partitions, and the disk it is a partition of."""
    node = _node(rdev, sys_root)
    members = {rdev}
    if (node / "partition").exists():
        members |= _numbers(node.resolve().parent / "dev")
    for name in _names(node):
        if (node / name / "partition").exists():
            members |= _numbers(node / name / "dev")
    return members


def _storage(path: Path) -> tuple[set[tuple[str, int, int]], set[tuple[str, int, int]]]:
    """Return (what a path is, what it is a part of)."""
    facts = path.stat()
    own = {("file", facts.st_dev, facts.st_ino)}
    whole: set[tuple[str, int, int]] = set()
    if stat.S_ISBLK(facts.st_mode):
        own.add(("device", facts.st_rdev, 0))
        node = _node(facts.st_rdev, _SYS)
        if (node / "partition").exists():
            node = node.resolve().parent
            whole |= {("device", disk, 0) for disk in _numbers(node / "dev")}
        backing = _backing_file(node)
        if backing is not None:
            behind = backing.stat()
            (whole or own).add(("file", behind.st_dev, behind.st_ino))
    return own, whole


def _loops(sys_root: Path) -> Iterator[tuple[int, Path]]:
    for name in _names(sys_root / "block"):
        node = sys_root / "block" / name
        backing = _backing_file(node) if name.startswith("loop") else None
        if backing is not None:
            for number in _numbers(node / "dev"):
                yield number, backing


def _backing_file(node: Path) -> Path | None:
    try:
        return Path((node / "loop" / "backing_file").read_text().rstrip("\n"))
    except OSError:
        return None


def _mounts(proc_root: Path) -> Iterator[_Mount]:
    """Parse mountinfo: `36 35 98:0 /root /point opts … - fstype source superopts`."""
    for line in _lines(proc_root / "self" / "mountinfo"):
        place, _, filesystem = line.partition(" - ")
        left, right = place.split(" "), filesystem.split(" ")
        if len(left) > 4 and len(right) > 1:
            yield _Mount(left[2], _unescaped(right[1]), _unescaped(left[4]))


def _swaps(proc_root: Path) -> Iterator[str]:
    for line in _lines(proc_root / "swaps")[1:]:
        yield _unescaped(line.split()[0])


def _unescaped(text: str) -> str:
    return _OCTAL.sub(lambda match: chr(int(match[1], 8)), text)


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(errors="surrogateescape").splitlines()
    except OSError:
        return []


def _names(directory: Path) -> list[str]:
    try:
        return sorted(entry.name for entry in directory.iterdir())
    except OSError:
        return []


def _node(rdev: int, sys_root: Path) -> Path:
    return sys_root / "dev" / "block" / f"{os.major(rdev)}:{os.minor(rdev)}"


def _numbers(dev_file: Path) -> set[int]:
    try:
        major, minor = dev_file.read_text().strip().split(":")
        return {os.makedev(int(major), int(minor))}
    except (OSError, ValueError):
        return set()


def _rdev(path: str) -> int:
    """Device number behind a path, or -1 when it is no block device."""
    if not path.startswith("/"):
        return -1
    try:
        facts = Path(path).stat()
    except OSError:
        return -1
    return facts.st_rdev if stat.S_ISBLK(facts.st_mode) else -1


def _same_file(one: Path, other: Path) -> bool:
    try:
        return one.samefile(other)
    except OSError:
        return False
