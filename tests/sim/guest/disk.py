"""Lays out, in directories of the host, what an instance is made of.

Its root file system, and beside that /dev and /sys: these belong to the machine, not to
what it boots from, and the host changes them while it runs.
"""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Mapping
from pathlib import Path

from tests.sim.guest.mounts import DEVICES, LOOP_FACTS, SYSTEM_DIRECTORIES, Image, libraries, mounts
from tests.sim.guest.programs import environment_config, in_guest

COPIED_ETC = ("ld.so.cache", "ld.so.conf", "resolv.conf", "nsswitch.conf", "protocols", "services")
OS_RELEASE = 'ID={distro}\nVERSION_ID="{version}"\nPRETTY_NAME="{distro} {version}"\n'


LOOP_MAJOR, LOOP_NODES = 7, 64
"""More loop devices than a machine has in use: programs take the first free one."""
LOOP_CONTROL = os.makedev(10, 237)


def make_machine(directory: Path) -> None:
    """Lay out `dev` and `sys` of an instance below its directory."""
    dev = directory / "dev"
    for path in (dev / "disk/by-id", dev / "pts", dev / "shm", directory / "sys/block"):
        path.mkdir(parents=True, exist_ok=True)
    (dev / "shm").chmod(0o1777)
    for device in DEVICES:
        (dev / device).touch()
    (dev / "fd").symlink_to("/proc/self/fd")
    os.mkfifo(dev / "console", 0o600)
    if os.geteuid() == 0:
        _make_loops(directory)


def _make_loops(directory: Path) -> None:
    """What mounting a file takes: loop devices, and places for what the kernel says of them."""
    dev = directory / "dev"
    os.mknod(dev / "loop-control", 0o600 | stat.S_IFCHR, LOOP_CONTROL)
    for number in range(LOOP_NODES):
        os.mknod(dev / f"loop{number}", 0o600 | stat.S_IFBLK, os.makedev(LOOP_MAJOR, number))
    for name in LOOP_FACTS:
        (directory / "sys" / name).mkdir(parents=True)


def make(root: Path, image: Image) -> None:
    """Lay out the root file system of an instance of `image`."""
    for directory in (
        *("boot", "dev", "etc", "home", "mnt", "opt", "proc", "run", "srv", "sys", "var/lib"),
        *("var/log", "var/cache", "var/spool", "usr/.host"),
        *("etc/systemd/system", "etc/default", "usr/local/bin", "usr/local/sbin", "run/lock"),
    ):
        (root / directory).mkdir(parents=True, exist_ok=True)
    for directory, mode in (
        ("root", 0o700),
        ("tmp", 0o1777),
        ("var/tmp", 0o1777),
    ):
        (root / directory).mkdir()
        (root / directory).chmod(mode)
    (root / "var/run").symlink_to("/run")
    _make_usr(root)
    _make_etc(root, image.properties)
    if image.prepared:
        _make_agent(root, image)
    for _, target in mounts(root, image):
        target.mkdir(parents=True, exist_ok=True)


def _make_usr(root: Path) -> None:
    """Links of the host's / and /usr are copied; their directories get mounted."""
    for name in SYSTEM_DIRECTORIES:
        original = Path("/") / name
        if original.is_symlink():
            (root / name).symlink_to(original.readlink())
    for entry in Path("/usr").iterdir():
        if entry.is_symlink():
            (root / "usr" / entry.name).symlink_to(entry.readlink())
    (root / "usr/pyvenv.cfg").write_text(environment_config())


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


def _make_agent(root: Path, image: Image) -> None:
    """A prepared image: the agent of this checkout, run by this environment."""
    launcher = root / "opt/blockferry/bin/blockferry-agent"
    launcher.parent.mkdir(parents=True)
    paths = [image.checkout / "proto", image.checkout / "agent", *libraries()]
    launcher.write_text(
        f"#!/bin/sh\nexport PYTHONPATH={':'.join(str(in_guest(path)) for path in paths)}\n"
        'exec /usr/bin/python3 -m blockferry_agent "$@"\n'
    )
    launcher.chmod(0o755)
