"""Lanes of a pair whose instances few can reach: one after another and side by side.

What passes the walls of their networks is written down, as in test_private_networks.py.
"""

import json
import socket
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from blockferry_controller.engine.state import StateStore
from tests.fleet_show import Show
from tests.integration.test_pool_batch import assert_all_is_well, pairs, pooled
from tests.integration.test_private_networks import made, reaching
from tests.sim import Walls
from tests.sim.guest import why_guests_cannot_run

pytestmark = [
    pytest.mark.skipif(bool(why_guests_cannot_run()), reason=why_guests_cannot_run()),
    pytest.mark.timeout(480),
]
LANES = 2
COUNT = 5


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Show]:
    pool: dict[str, object] = {"max": 1, "lanes": LANES}
    with pooled(tmp_path, pool, count=COUNT, waves=[{"name": "all"}]) as stage:
        yield stage


def moved(stage: Show, **configuration: object) -> set[tuple[str, str]]:
    """Ways that the volumes took, all through one pair of two lanes."""
    (stage.directory / "blockferry").mkdir()
    config = stage.directory / "blockferry" / "config.yaml"
    config.write_text(json.dumps(configuration), encoding="utf-8")
    done = stage.run("batch", str(stage.fleet), seconds=400)
    assert done.returncode == 0, done.stderr
    assert_all_is_well(stage)
    (pair,) = pairs(stage)
    assert pair.served == COUNT
    assert all(lane.served for lane in pair.lanes)
    with closing(StateStore.open(stage.state_url)) as store:
        results = [record.result or {} for record in store.listing.migrations()]
    return {(result["rung"], result["direction"]) for result in results}


def test_the_source_dials_a_floating_ip_that_all_lanes_share(stage: Show) -> None:
    east, west = stage.clouds.east, stage.clouds.west
    east.walls, west.walls = reaching(west.external_cidr, LANES), reaching(lanes=LANES)
    assert moved(stage) == {("floating-ip", "source-to-sink")}
    assert (made(east), made(west)) == (0, 1)


def test_the_sink_dials_a_fixed_address(stage: Show) -> None:
    east, west = stage.clouds.east, stage.clouds.west
    east.walls, west.walls = reaching(lanes=LANES), reaching(east.tenant_cidr, LANES)
    ways = moved(stage, clouds={"west": {"floating_ip": "never"}})
    assert ways == {("ipv4", "sink-to-source")}
    assert made(east) == made(west) == 0


def test_the_sink_dials_a_floating_ip_that_all_lanes_share(stage: Show) -> None:
    east, west = stage.clouds.east, stage.clouds.west
    east.walls, west.walls = reaching(lanes=LANES), reaching(east.external_cidr, LANES)
    ways = moved(stage, clouds={"west": {"floating_ip": "never"}})
    assert ways == {("floating-ip", "sink-to-source")}
    assert (made(east), made(west)) == (1, 0)


def test_all_agents_dial_the_one_port_of_the_controller(stage: Show) -> None:
    """The controller reaches the sink only, which the source reaches, too."""
    east, west = stage.clouds.east, stage.clouds.west
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    controller = ("127.0.0.1", port)
    pair = reaching(west.tenant_cidr, LANES)
    east.walls = Walls(outwards=(*pair.outwards, controller))
    west.walls = replace(reaching(lanes=LANES), outwards=(controller,))
    address = {"controller_address": f"127.0.0.1:{port}", "floating_ip": "never"}
    assert moved(stage, defaults=address) == {("ipv4", "source-to-sink")}
