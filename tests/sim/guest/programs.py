"""What an instance finds in /usr/bin and /usr/sbin: the host's programs, mostly.

Made once for all instances of a cloud, as two directories of symbolic links to
/usr/.host, where an instance has the host's /usr. Different are `systemctl` and
its kin, which speak to our init, `lsblk` and `udevadm`, which know of our disks,
and Python, which is hidden: `/usr/bin/python3` is the interpreter of the simulator,
and `/usr/pyvenv.cfg` makes it an empty environment, without pip, as in the cloud
images of Debian and Ubuntu.
"""

from __future__ import annotations

import os
import re
import sys
import threading
from pathlib import Path

HIDDEN = re.compile(r"(python|pip|pydoc|idle|2to3|blockferry|wheel|uv)[\w.\-]*$")
"""Programs of the host that a stock image would not have."""
CONTROL_NAMES = ("systemctl", "poweroff", "shutdown", "halt", "reboot")

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
OWN_PROGRAMS = {
    **dict.fromkeys(CONTROL_NAMES, CONTROL_PROGRAM),
    "lsblk": "#!/usr/bin/python3 -IS\n" + Path(__file__).with_name("lsblk.py").read_text(),
    # A disk comes with its links and its serial: there is never anything to wait for.
    "udevadm": "#!/bin/sh\n",
}

_making = threading.Lock()


def make_programs(directory: Path) -> None:
    """Make `directory`/bin and /sbin, unless they are there."""
    with _making:
        if directory.exists():
            return
        for name in ("bin", "sbin"):
            original = Path("/usr") / name
            if not original.is_symlink():
                _link_programs(original, directory / name)
        (directory / "bin/python3").symlink_to(in_guest(Path(base_interpreter())))
        for program, text in OWN_PROGRAMS.items():
            (directory / "bin" / program).write_text(text)
            (directory / "bin" / program).chmod(0o755)
            if (directory / "sbin").exists():
                (directory / "sbin" / program).symlink_to(f"/usr/bin/{program}")


def _link_programs(original: Path, directory: Path) -> None:
    directory.mkdir(parents=True)
    for entry in original.iterdir():
        if not HIDDEN.match(entry.name) and entry.name not in OWN_PROGRAMS:
            (directory / entry.name).symlink_to(f"/usr/.host/{original.name}/{entry.name}")


def environment_config() -> str:
    """Text of `/usr/pyvenv.cfg`."""
    return (
        f"home = {in_guest(Path(base_interpreter())).parent}\n"
        "include-system-site-packages = false\n"
        f"version = {'.'.join(map(str, sys.version_info[:3]))}\n"
    )


def base_interpreter() -> str:
    """The interpreter below any virtual environment, without symbolic links."""
    return os.path.realpath(getattr(sys, "_base_executable", sys.executable))


def in_guest(path: Path) -> Path:
    """Where a file of the host is in an instance: all of /usr is at /usr/.host too."""
    if path.is_relative_to("/usr"):
        return Path("/usr/.host") / path.relative_to("/usr")
    return path
