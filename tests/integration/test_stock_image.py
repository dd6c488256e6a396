"""A migration between clouds whose images know nothing of Blockferry.

The instances get pip, wheels and the agent as they would in a real cloud.
"""

import contextlib
import json
import os
import random
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.sim import EmbeddedClouds
from tests.sim.guest import why_guests_cannot_run
from tests.wheelhouse import collect

pytestmark = [
    pytest.mark.skipif(bool(why_guests_cannot_run()), reason=why_guests_cannot_run()),
    pytest.mark.timeout(240),
]


def fill(path: Path) -> None:
    with path.open("r+b") as file:
        file.write(random.Random(7).randbytes(4 << 20))


def migrate(
    clouds: EmbeddedClouds, directory: Path, wheels: str
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [
            *(sys.executable, "-m", "blockferry_controller", "migrate", "data"),
            *("--from", "east", "--to", "west", "-o", "json", "--wheels", wheels),
        ],
        env={
            **{key: text for key, text in os.environ.items() if not key.startswith("BLOCKFERRY_")},
            "BLOCKFERRY_STATE": f"sqlite:///{directory}/state/state.db",
            "OS_CLIENT_CONFIG_FILE": str(clouds.clouds_yaml),
            "XDG_CONFIG_HOME": str(directory),
        },
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
    )


@contextlib.contextmanager
def serve(directory: Path) -> Iterator[str]:
    """As a person does it: `blockferry wheels serve`; its URL."""
    process = subprocess.Popen(
        [
            *(sys.executable, "-m", "blockferry_controller", "wheels", "serve", str(directory)),
            *("--address", "127.0.0.1", "--port", "0"),
        ],
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        yield process.stdout.readline().strip()
    finally:
        process.terminate()
        assert process.wait(20) == 0
        if process.stdout is not None:
            process.stdout.close()


def test_a_volume_crosses_between_stock_images(tmp_path: Path) -> None:
    collect(tmp_path / "wheels")
    with EmbeddedClouds(tmp_path / "clouds") as clouds, serve(tmp_path / "wheels") as url:
        source_id = clouds.east.make_volume("data", 1, fill)
        done = migrate(clouds, tmp_path, url)
        assert done.returncode == 0, done.stderr
        told = json.loads(done.stdout)
        paths = (
            clouds.east.volume_path(source_id),
            clouds.west.volume_path(told["destination_volume_id"]),
        )
        assert subprocess.run(["cmp", *paths], check=False).returncode == 0
        assert told["verified"]
