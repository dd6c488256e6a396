"""Real block devices for tests: loop devices, made and removed again."""

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest


def run(*command: str | Path) -> str:
    """Run a tool of the system; its output."""
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=30).stdout


@contextmanager
def loop_device(backing: Path, *options: str) -> Iterator[Path]:
    """Attach a loop device to `backing`; skips the test where that is not possible."""
    if os.geteuid() != 0:
        pytest.skip("loop devices need root")
    try:
        device = Path(run("losetup", "--find", "--show", *options, backing).strip())
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"no loop devices here: {error}")
    try:
        yield device
    finally:
        run("losetup", "--detach", device)
