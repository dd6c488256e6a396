"""Migrations between instances that few can reach, or that reach few.

Each instance has a network of its own; what passes its walls is written down. So
nothing here is pretended: an address that is not let through does not answer.
"""

import json
import os
import random
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from blockferry import __version__
from blockferry.limits import AGENT_PORT, MIB
from tests.sim import EmbeddedCloud, EmbeddedClouds, Walls
from tests.sim.guest import why_guests_cannot_run
from tests.wheelhouse import collect, serve

pytestmark = [
    pytest.mark.skipif(bool(why_guests_cannot_run()), reason=why_guests_cannot_run()),
    pytest.mark.timeout(480),
]

REACHED = Walls(inwards=(AGENT_PORT,))


@dataclass
class Stage:
    """Two clouds, a volume in east, and the command line."""

    clouds: EmbeddedClouds
    directory: Path
    source_id: str
    port: int

    @property
    def environment(self) -> dict[str, str]:
        ours = {key: text for key, text in os.environ.items() if not key.startswith("BLOCKFERRY_")}
        return ours | {
            "BLOCKFERRY_STATE": f"sqlite:///{self.directory}/state/state.db",
            "OS_CLIENT_CONFIG_FILE": str(self.clouds.clouds_yaml),
            "XDG_CONFIG_HOME": str(self.directory),
        }

    @property
    def dials_out(self) -> Walls:
        """Walls that let nothing in, and out only to the controller's port."""
        return Walls(outwards=(("127.0.0.1", self.port),))

    @property
    def dialled(self) -> tuple[str, str]:
        return ("--controller-address", f"127.0.0.1:{self.port}")

    def start(self, *arguments: str) -> "subprocess.Popen[str]":
        return subprocess.Popen(
            [sys.executable, "-m", "blockferry_controller", *arguments, "-o", "json"],
            env=self.environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip

    def begin(self, *options: str) -> "subprocess.Popen[str]":
        # No floating IPs: the rungs of the ladder that need them would take minutes.
        clouds = ("--from", "east", "--to", "west", "--floating-ip", "never")
        return self.start("migrate", "data", *clouds, *options)

    def finish(self, process: "subprocess.Popen[str]", code: int = 0) -> dict[str, Any]:
        stdout, stderr = process.communicate(timeout=300)
        assert process.returncode == code, stderr
        told: dict[str, Any] = json.loads(stdout)
        return told | {"stderr": stderr}

    def assert_equal(self, told: dict[str, Any]) -> None:
        assert told["verified"]
        paths = (
            self.clouds.east.volume_path(self.source_id),
            self.clouds.west.volume_path(told["destination_volume_id"]),
        )
        assert subprocess.run(["cmp", *paths], check=False).returncode == 0
        assert not any(leftovers(cloud) for cloud in (self.clouds.east, self.clouds.west))


def leftovers(cloud: EmbeddedCloud) -> list[str]:
    left = cloud.leftovers()
    return [*left["servers"], *left["ports"], *left["security groups"]]


def fill(path: Path) -> None:
    with path.open("r+b") as file:
        file.write(random.Random(7).randbytes(8 * MIB))


@pytest.fixture(params=[__version__])
def stage(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Stage]:
    with EmbeddedClouds(tmp_path / "clouds", prepared_version=request.param) as clouds:
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        yield Stage(clouds, tmp_path, clouds.east.make_volume("data", 1, fill), port)
        assert clouds.east.problems == clouds.west.problems == []


def test_instances_that_only_the_controller_reaches_are_relayed(stage: Stage) -> None:
    stage.clouds.east.walls = stage.clouds.west.walls = REACHED
    told = stage.finish(stage.begin("--allow-relay"))
    assert told["rung"] == "relay"
    assert "all bytes go through this controller" in told["stderr"]
    stage.assert_equal(told)


def test_nothing_is_relayed_unless_it_was_allowed(stage: Stage) -> None:
    stage.clouds.east.walls = stage.clouds.west.walls = REACHED
    told = stage.finish(stage.begin(), code=16)
    assert told["error"]["reason"] == "PAIR_UNREACHABLE"
    assert "--allow-relay" in told["error"]["message"]
    assert not leftovers(stage.clouds.east)
    assert not leftovers(stage.clouds.west)


@pytest.mark.parametrize(
    ("east", "west"),
    [
        pytest.param("dials_out", "dials_out", id="both dial out"),
        pytest.param("reached", "dials_out", id="the sink dials out"),
        pytest.param("dials_out", "reached", id="the source dials out"),
    ],
)
def test_instances_that_nobody_reaches_dial_out(stage: Stage, east: str, west: str) -> None:
    walls = {"dials_out": stage.dials_out, "reached": REACHED}
    stage.clouds.east.walls, stage.clouds.west.walls = walls[east], walls[west]
    told = stage.finish(stage.begin("--allow-relay", *stage.dialled))
    assert told["rung"] == "relay"
    stage.assert_equal(told)


def test_a_killed_controller_is_dialled_again_when_it_comes_back(stage: Stage) -> None:
    stage.clouds.east.walls = stage.clouds.west.walls = stage.dials_out
    begun = stage.begin("--allow-relay", *stage.dialled, "--limit", "1MiB/s")
    assert begun.stderr is not None
    event: dict[str, Any] = {}
    try:
        while event.get("committed_bytes", 0) < 2 * MIB:
            event = json.loads(begun.stderr.readline())
            assert event["event"] != "ended", event
    finally:
        begun.kill()
        begun.communicate()
    told = stage.finish(stage.start("resume", event["migration_id"]))
    assert (told["rung"], told["epoch"]) == ("relay", 2)
    # The agents went on waiting: what was in flight went twice, and no more.
    assert told["sent_bytes"] < 2 * 8 * MIB
    stage.assert_equal(told)


@pytest.mark.parametrize("stage", [None], indirect=True)
def test_a_stock_image_that_nobody_reaches_dials_out_for_the_agent(
    stage: Stage, tmp_path: Path
) -> None:
    collect(tmp_path / "wheels")
    with serve(tmp_path / "wheels") as url:
        place = ("127.0.0.1", int(url.rpartition(":")[2]))
        walls = Walls(outwards=(*stage.dials_out.outwards, place))
        stage.clouds.east.walls = stage.clouds.west.walls = walls
        told = stage.finish(stage.begin("--allow-relay", *stage.dialled, "--wheels", url))
    stage.assert_equal(told)


def test_a_port_that_is_taken_is_told_before_anything_is_made(stage: Stage) -> None:
    with closing(socket.create_server(("", stage.port))):
        told = stage.finish(stage.begin(*stage.dialled), code=12)
    assert told["error"]["reason"] == "CONTROLLER_PORT_TAKEN"
    assert not stage.clouds.east.nova.servers
