"""The root file system of an instance.

`make` lays it out on the host's disk; `enter`, in the instance's own mount
namespace, puts the host's programs into it, read-only, and changes the root.

The guest's Python is the interpreter of the simulator with nothing installed:
`/usr/pyvenv.cfg` makes `/usr/bin/python3` an empty environment, without pip and
without ensurepip, as in the cloud images of Debian and Ubuntu.
"""

from __future__ import annotations

import ctypes
import os
import re
import shutil
import sys
import sysconfig
from collections.abc import Mapping
from pathlib import Path

MS_RDONLY, MS_NOSUID, MS_NODEV, MS_NOEXEC = 1, 2, 4, 8
MS_REMOUNT, MS_BIND, MS_REC = 32, 4096, 16384
DEVICES = ("null", "zero", "full", "random", "urandom", "tty")
HIDDEN = re.compile(r"(python|pip|pydoc|idle|2to3|blockferry|wheel|uv)[\w.\-]*$")
"""Programs of the host that a stock image would not have."""
OWN_PROGRAMS = ("systemctl", "poweroff", "shutdown", "halt", "reboot")
SHARED_ETC = ("ssl", "pki", "crypto-policies", "alternatives", "ca-certificates")
COPIED_ETC = ("ld.so.cache", "ld.so.conf", "resolv.conf", "nsswitch.conf", "protocols", "services")
OS_RELEASE = (
    'ID={distro}\nVERSION_ID="{version}"\nNAME="{distro}"\nPRETTY_NAME="{distro} {version}"\n'
)

CONTROL_PROGRAM = """#!/usr/bin/python3 -IS
import json, os, socket, sys
words = [os.path.basename(sys.argv[0]), *sys.argv[1:]]
with socket.socket(socket.AF_UNIX) as line:
    line.connect("/run/init.sock")
    line.sendall(json.dumps(words).encode() + b"\\n")
    answer = json.loads(b"".join(iter(lambda: line.recv(65536), b"")) or b'[1, "", "no answer"]')
sys.stdout.write(answer[1])
sys.stderr.write(answer[2])
sys.exit(answer[0])
"""


def make(root: Path, properties: Mapping[str, str], checkout: Path) -> None:
    """Lay out the disk of an image with these properties."""
    for directory in (
        *("boot", "etc", "home", "mnt", "opt", "proc", "run", "srv", "sys/block", "var/lib"),
        *("var/log", "var/cache", "var/spool", "dev/disk/by-id", "dev/pts", "usr/.host"),
        *("etc/systemd/system", "etc/default", "usr/local/bin", "usr/local/sbin", "run/lock"),
    ):
        (root / directory).mkdir(parents=True, exist_ok=True)
    for directory, mode in (
        ("root", 0o700),
        ("tmp", 0o1777),
        ("var/tmp", 0o1777),
        ("dev/shm", 0o1777),
    ):
        (root / directory).mkdir()
        (root / directory).chmod(mode)
    (root / "var/run").symlink_to("/run")
    _make_usr(root)
    _make_etc(root, properties)
    for device in DEVICES:
        (root / "dev" / device).touch()
    (root / "dev/fd").symlink_to("/proc/self/fd")
    os.mkfifo(root / "dev/console", 0o600)
    if properties.get("blockferry_agent"):
        _make_agent(root, checkout)
    for _, target in mounts(root, properties, checkout):
        target.mkdir(parents=True, exist_ok=True)


def _make_usr(root: Path) -> None:
    """Directories of the host's /usr are mounted; of its programs each has a link."""
    for name in ("bin", "sbin", "lib", "lib32", "lib64", "libx32"):
        original = Path("/") / name
        if original.is_symlink():
            (root / name).symlink_to(original.readlink())
    for entry in Path("/usr").iterdir():
        if entry.is_symlink():
            (root / "usr" / entry.name).symlink_to(entry.readlink())
    for name in ("bin", "sbin"):
        directory = root / "usr" / name
        if directory.is_symlink():
            continue
        directory.mkdir()
        for entry in (Path("/usr") / name).iterdir():
            if not HIDDEN.match(entry.name) and entry.name not in OWN_PROGRAMS:
                (directory / entry.name).symlink_to(f"/usr/.host/{name}/{entry.name}")
    _make_python(root)
    _make_control(root)


def _make_python(root: Path) -> None:
    """An interpreter with nothing installed."""
    interpreter = in_guest(Path(base_interpreter()))
    (root / "usr/pyvenv.cfg").write_text(
        f"home = {interpreter.parent}\ninclude-system-site-packages = false\n"
        f"version = {'.'.join(map(str, sys.version_info[:3]))}\n"
    )
    (root / "usr/bin/python3").symlink_to(interpreter)


def _make_control(root: Path) -> None:
    """Programs that speak to our init instead of the host's systemd."""
    programs = root / "usr/bin"
    for program in OWN_PROGRAMS:
        (programs / program).write_text(CONTROL_PROGRAM)
        (programs / program).chmod(0o755)
        if not (root / "usr/sbin").is_symlink():
            (root / "usr/sbin" / program).symlink_to(f"/usr/bin/{program}")


def base_interpreter() -> str:
    """The interpreter below any virtual environment, without symbolic links."""
    return os.path.realpath(getattr(sys, "_base_executable", sys.executable))


def in_guest(path: Path) -> Path:
    """Where a file of the host is in an instance: all of /usr is at /usr/.host too."""
    if path.is_relative_to("/usr"):
        return Path("/usr/.host") / path.relative_to("/usr")
    return path


def _make_etc(root: Path, properties: Mapping[str, str]) -> None:
    etc = root / "etc"
    distro = properties.get("os_distro", "linux")
    version = properties.get("os_version", "1")
    (etc / "os-release").write_text(OS_RELEASE.format(distro=distro, version=version))
    (etc / "passwd").write_text(
        "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/usr/sbin/nologin\n"
    )
    (etc / "group").write_text("root:x:0:\ndisk:x:6:\nnogroup:x:65534:\n")
    (etc / "hosts").write_text("127.0.0.1 localhost\n::1 localhost\n")
    (etc / "mtab").symlink_to("/proc/self/mounts")
    (etc / "machine-id").write_text(os.urandom(16).hex() + "\n")
    for name in COPIED_ETC:
        if (Path("/etc") / name).is_file():
            shutil.copyfile(Path("/etc") / name, etc / name)


def _make_agent(root: Path, checkout: Path) -> None:
    """A prepared image: the agent of this checkout, run by this environment."""
    launcher = root / "opt/blockferry/bin/blockferry-agent"
    launcher.parent.mkdir(parents=True)
    paths = [checkout / "proto", checkout / "agent", *map(Path, _libraries())]
    launcher.write_text(
        f"#!/bin/sh\nexport PYTHONPATH={':'.join(str(in_guest(path)) for path in paths)}\n"
        'exec /usr/bin/python3 -m blockferry_agent "$@"\n'
    )
    launcher.chmod(0o755)


def _libraries() -> list[str]:
    """Where this environment's packages are."""
    return sorted({sysconfig.get_path("purelib"), sysconfig.get_path("platlib")})


def mounts(root: Path, properties: Mapping[str, str], checkout: Path) -> list[tuple[Path, Path]]:
    """Directories of the host that an instance sees, and where; all read-only."""
    found = [(Path("/usr"), root / "usr/.host")]
    for entry in sorted(Path("/usr").iterdir()):
        if entry.is_dir() and not entry.is_symlink() and entry.name not in {"bin", "sbin", "local"}:
            found.append((entry, root / "usr" / entry.name))  # noqa: PERF401
    for name in ("bin", "sbin", "lib", "lib32", "lib64", "libx32"):
        original = Path("/") / name
        if original.is_dir() and not original.is_symlink():
            found.append((original, root / name))
    seen = [Path("/usr")]
    for prefix in [Path("/usr/local/lib"), *python_directories(properties, checkout)]:
        local = prefix == Path("/usr/local/lib") and prefix.is_dir()
        if local or not any(prefix.is_relative_to(one) for one in seen):
            seen.append(prefix)
            found.append((prefix, root / prefix.relative_to("/")))
    shared = [Path("/etc") / name for name in SHARED_ETC]
    found.extend((path, root / "etc" / path.name) for path in shared if path.is_dir())
    return found


def python_directories(properties: Mapping[str, str], checkout: Path) -> list[Path]:
    """Where the interpreter lives, and for a prepared image the agent and its libraries."""
    found = [
        Path(sys.base_prefix),
        Path(os.path.realpath(sys.base_prefix)),
        Path(base_interpreter()).parent.parent,
    ]
    if properties.get("blockferry_agent"):
        found += [checkout, *map(Path, _libraries())]
    return found


def enter(root: Path, properties: Mapping[str, str], checkout: Path) -> None:
    """Mount, then make `root` the root of this process and its children.

    Raises:
        OSError: the kernel refuses; there is no instance then.
    """
    for source, target in mounts(root, properties, checkout):
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
        kept |= 1 << 21
    if flags & os.ST_NOATIME:
        kept |= 1 << 10
    return kept


def _mount(source: str, target: Path, kind: str, flags: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    result = libc.mount(
        source.encode(), os.fsencode(target), kind.encode(), ctypes.c_ulong(flags), None
    )
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), str(target))
