"""Commands as the bench runs them: found or named as missing, timed, and counted."""

import json
import os
import resource
import shutil
import subprocess
import time
from dataclasses import dataclass, field
from typing import Any

LIMIT_SECONDS = 900


@dataclass(frozen=True)
class MissingPeerError(Exception):
    """A command that this machine does not have, and how to get it."""

    command: str
    package: str

    def __str__(self) -> str:
        return f"{self.command} is missing: apt-get install {self.package}"


@dataclass(frozen=True)
class Run:
    """One run of a command.

    Attributes:
        cpu_seconds: Of the command and what it waited for; an sshd's share is not in it.
        document: What it printed, where that was JSON.
    """

    seconds: float
    cpu_seconds: float
    document: dict[str, Any] = field(default_factory=dict)


def find(command: str, package: str) -> str:
    """The command's path.

    Raises:
        MissingPeerError: it is not installed.
    """
    path = shutil.which(command, path=f"{os.environ['PATH']}:/usr/sbin:/sbin")
    if path is None:
        raise MissingPeerError(command, package)
    return path


def run(command: str) -> Run:
    """Run a shell command to its end.

    Raises:
        RuntimeError: it failed.
    """
    before, start = _cpu_seconds(), time.perf_counter()
    done = subprocess.run(
        ["bash", "-o", "pipefail", "-c", command],
        capture_output=True, text=True, timeout=LIMIT_SECONDS, check=False,
    )  # fmt: skip
    seconds = time.perf_counter() - start
    if done.returncode != 0:
        raise RuntimeError(f"{command}\nended with {done.returncode}: {done.stderr.strip()}")
    printed = done.stdout.strip()
    document = json.loads(printed) if printed.startswith("{") else {}
    return Run(seconds, _cpu_seconds() - before, document)


def _cpu_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime
