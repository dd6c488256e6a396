"""Puts the host's programs and libraries into an instance's root, and enters it.

Runs in the instance's own mount namespace, so the host sees none of it.
"""

from __future__ import annotations

import ctypes
import os
import sys
import sysconfig
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from tests.sim.guest.programs import base_interpreter, in_guest

MS_RDONLY, MS_NOSUID, MS_NODEV, MS_NOEXEC = 1, 2, 4, 8
MS_REMOUNT, MS_NOATIME, MS_BIND, MS_REC, MS_RELATIME = 32, 1024, 4096, 16384, 1 << 21
LOOP_FACTS = ("dev/block", "devices/virtual/block")
"""Directories of sysfs by which `mount` and `umount` know loop devices. No disk is found there."""
DEVICES = ("null", "zero", "full", "random", "urandom", "tty")
SYSTEM_DIRECTORIES = ("bin", "sbin", "lib", "lib32", "lib64", "libx32")
SHARED_ETC = ("ssl", "pki", "crypto-policies", "alternatives", "ca-certificates")


@dataclass(frozen=True)
class Image:
    """What an instance is booted from.

    Attributes:
        properties: Of the image in Glance.
        programs: See `make_programs`.
        checkout: Holds the agent of a prepared image.
    """

    properties: Mapping[str, str]
    programs: Path
    checkout: Path

    @property
    def prepared(self) -> bool:
        """True when the agent is in the image."""
        return bool(self.properties.get("blockferry_agent"))


def libraries() -> list[Path]:
    """Where the packages of the simulator's environment are."""
    return sorted({Path(sysconfig.get_path("purelib")), Path(sysconfig.get_path("platlib"))})


def mounts(root: Path, image: Image) -> list[tuple[Path, Path]]:
    """Directories of the host that an instance sees, and where; all read-only."""
    found = [(Path("/usr"), root / "usr/.host")]
    for path in [*Path("/usr").iterdir(), *(Path("/") / name for name in SYSTEM_DIRECTORIES)]:
        if path.is_dir() and not path.is_symlink() and path != Path("/usr/local"):
            own = image.programs / path.name
            is_programs = path.parent == Path("/usr") and own.is_dir()
            found.append((own if is_programs else path, root / path.relative_to("/")))
    found.extend((path, root / path.relative_to("/")) for path in _python_directories(image))
    shared = [Path("/etc") / name for name in SHARED_ETC]
    found.extend((path, root / path.relative_to("/")) for path in shared if path.is_dir())
    return found


def _python_directories(image: Image) -> list[Path]:
    """Where the interpreter lives, and for a prepared image the agent and its libraries."""
    wanted = [
        Path(sys.base_prefix),
        Path(os.path.realpath(sys.base_prefix)),
        Path(base_interpreter()).parent.parent,
    ]
    if image.prepared:
        wanted += [image.checkout, *libraries()]
    local = Path("/usr/local/lib")
    found = [local] if local.is_dir() else []
    for path in wanted:
        if not any(path.is_relative_to(one) for one in [Path("/usr"), *found]):
            found.append(path)
    return found


def enter(directory: Path, image: Image) -> None:
    """Mount, then make `directory`/root the root of this process and its children.

    Raises:
        OSError: the kernel refuses; there is no instance then.
    """
    root = directory / "root"
    for name in ("dev", "sys"):
        bind(directory / name, root / name, read_only=False)
    for name in LOOP_FACTS:
        if (root / "sys" / name).is_dir():
            bind(Path("/sys") / name, root / "sys" / name, read_only=True)
    for source, target in mounts(root, image):
        bind(source, target, read_only=True)
    for device in DEVICES:
        bind(Path("/dev") / device, root / "dev" / device, read_only=False)
    _hide_ensurepip(root)
    try:
        _mount("proc", root / "proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC)
    except OSError:  # refused in a container that hides parts of its own
        bind(Path("/proc"), root / "proc", read_only=False)
    os.chroot(root)
    os.chdir("/")


def _hide_ensurepip(root: Path) -> None:
    library = in_guest(Path(os.__file__).parent)
    target = root / (library / "ensurepip").relative_to("/")
    if target.is_dir():
        bind(root / "mnt", target, read_only=True)


def bind(source: Path, target: Path, *, read_only: bool) -> None:
    """Show `source` at `target` too."""
    try:
        _mount(str(source), target, "", MS_BIND)
    except OSError:  # in a user namespace what has mounts below it goes only with them
        _mount(str(source), target, "", MS_BIND | MS_REC)
    if read_only:
        kept = _locked_flags(target)
        _mount("", target, "", MS_BIND | MS_REMOUNT | MS_RDONLY | kept)


def _locked_flags(path: Path) -> int:
    """Flags that a remount in a user namespace must repeat."""
    flags = os.statvfs(path).f_flag
    pairs = ((os.ST_NOSUID, MS_NOSUID), (os.ST_NODEV, MS_NODEV), (os.ST_NOEXEC, MS_NOEXEC))
    kept = sum(ours for theirs, ours in pairs if flags & theirs)
    if flags & os.ST_RELATIME:
        kept |= MS_RELATIME
    if flags & os.ST_NOATIME:
        kept |= MS_NOATIME
    return kept


def _mount(source: str, target: Path, kind: str, flags: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    result = libc.mount(
        source.encode(), os.fsencode(target), kind.encode(), ctypes.c_ulong(flags), None
    )
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), str(target))
