"""Each rung of the ladder between embedded clouds, by what passes the walls of their networks.

The controller reaches every instance at its fixed address; the instances reach what a
test lets through. Connections are real, and so are the addresses.
"""

import json
from typing import Any

import pytest

from blockferry.limits import AGENT_PORT
from tests.integration.test_walled import Stage, stage
from tests.sim import EmbeddedCloud, Walls
from tests.sim.guest import why_guests_cannot_run

__all__ = ["stage"]

pytestmark = [
    pytest.mark.skipif(bool(why_guests_cannot_run()), reason=why_guests_cannot_run()),
    pytest.mark.timeout(300),
]


def reaching(cidr: str = "", lanes: int = 1) -> Walls:
    """Walls that let out to the first addresses of a network, and the controller in."""
    prefix = cidr.rsplit(".", 1)[0]
    ports = tuple(range(AGENT_PORT, AGENT_PORT + lanes))
    hosts = range(2, 10) if cidr else ()
    outwards = tuple((f"{prefix}.{host}", port) for host in hosts for port in ports)
    return Walls(inwards=ports, outwards=outwards)


def migrated(stage: Stage, **floating_ip: str) -> dict[str, Any]:
    """The result; `floating_ip` for each cloud."""
    sections = {name: {"floating_ip": use} for name, use in floating_ip.items()}
    (stage.directory / "blockferry").mkdir()
    text = json.dumps({"clouds": sections})
    (stage.directory / "blockferry" / "config.yaml").write_text(text)
    told = stage.finish(stage.start("migrate", "data", "--from", "east", "--to", "west"))
    stage.assert_equal(told)
    for cloud in (stage.clouds.east, stage.clouds.west):
        assert not cloud.leftovers()["floating ips"]
    return told


def made(cloud: EmbeddedCloud) -> int:
    """How many floating IPs there were."""
    posts = [("neutron", "POST", "/v2.0/floatingips")]
    return sum(tuple(request[:3]) in posts for request in cloud.requests)


def test_the_source_dials_a_fixed_address(stage: Stage) -> None:
    stage.clouds.east.walls = reaching(stage.clouds.west.tenant_cidr)
    stage.clouds.west.walls = reaching()
    told = migrated(stage)
    assert (told["rung"], told["direction"]) == ("ipv4", "source-to-sink")
    assert made(stage.clouds.east) == made(stage.clouds.west) == 0


def test_the_source_dials_a_floating_ip_that_is_made_for_the_sink(stage: Stage) -> None:
    stage.clouds.east.walls = reaching(stage.clouds.west.external_cidr)
    stage.clouds.west.walls = reaching()
    told = migrated(stage)
    assert (told["rung"], told["direction"]) == ("floating-ip", "source-to-sink")
    assert (made(stage.clouds.east), made(stage.clouds.west)) == (0, 1)


def test_the_sink_dials_a_fixed_address(stage: Stage) -> None:
    stage.clouds.east.walls = reaching()
    stage.clouds.west.walls = reaching(stage.clouds.east.tenant_cidr)
    told = migrated(stage, west="never")
    assert (told["rung"], told["direction"]) == ("ipv4", "sink-to-source")
    assert made(stage.clouds.east) == made(stage.clouds.west) == 0


def test_the_sink_dials_a_floating_ip_that_is_made_for_the_source(stage: Stage) -> None:
    stage.clouds.east.walls = reaching()
    stage.clouds.west.walls = reaching(stage.clouds.east.external_cidr)
    told = migrated(stage, west="never")
    assert (told["rung"], told["direction"]) == ("floating-ip", "sink-to-source")
    assert (made(stage.clouds.east), made(stage.clouds.west)) == (1, 0)
