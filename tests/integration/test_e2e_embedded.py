"""The tests for real clouds pass on the embedded ones, and leave nothing on this machine.

In three parts at once, each between a pair of its own: most of their time they wait.
"""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.integration.test_sim_guests import processes
from tests.integration.test_sim_volumes import loops_of
from tests.sim.guest import why_volumes_cannot_be_mounted
from tests.wheelhouse import ROOT, collect

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(
        bool(why_volumes_cannot_be_mounted()), reason=why_volumes_cannot_be_mounted()
    ),
    pytest.mark.timeout(900),
]
PARTS = (
    ("tests/e2e", "-k", "no_wheels"),
    ("tests/e2e/test_accidents.py", "-k", "not no_wheels"),
    ("tests/e2e", "--ignore", "tests/e2e/test_accidents.py"),
)


@contextmanager
def part(directory: Path, wheels: Path, *arguments: str) -> Iterator["subprocess.Popen[str]"]:
    """One of them, at work."""
    command = [sys.executable, "-m", "tests.embedded", "--wheels", str(wheels), "--", "-q"]
    with subprocess.Popen(
        [*command, *arguments], cwd=ROOT, env={**os.environ, "TMPDIR": str(directory)},
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    ) as process:  # fmt: skip
        try:
            yield process
        finally:
            process.terminate()


def test_what_holds_on_real_clouds_holds_on_the_embedded_ones(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    wheels = tmp_path_factory.mktemp("wheels")
    collect(wheels)
    first, second, third = PARTS
    with (
        part(tmp_path, wheels, *first) as one,
        part(tmp_path, wheels, *second) as two,
        part(tmp_path, wheels, *third) as three,
    ):
        for process in (one, two, three):
            said, _ = process.communicate()
            assert process.returncode == 0, said
            assert "skipped" not in said.rsplit("\n", 2)[-2], said
    assert list(tmp_path.iterdir()) == []
    assert loops_of(tmp_path) == ""
    assert processes(str(tmp_path)) == []
