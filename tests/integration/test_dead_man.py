"""Agents that are left alone end by themselves, and never while they are needed."""

import base64
import random
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import grpc
import pytest

from blockferry import __version__
from blockferry.identity import Identity, Role
from blockferry.limits import MIB
from blockferry.v1 import agent_pb2
from blockferry_controller.agents.client import GrpcAgent
from blockferry_controller.delivery.user_data import AgentData, build_user_data
from blockferry_controller.migration.authority import Authority
from tests.agents import MIGRATION_ID, AgentProcess, Pair
from tests.sim import EmbeddedCloud, Timings
from tests.sim.guest import why_guests_cannot_run

DEAD_MAN_SECONDS = 4
WAIT_SECONDS = 40.0
SIZE = 24 * MIB


def begun(pair: Pair, tmp_path: Path) -> agent_pb2.Job:
    """A copy of which something is committed, by a source that is soon alone."""
    source = tmp_path / "source.img"
    source.write_bytes(random.Random(7).randbytes(SIZE))
    (tmp_path / "sink.img").write_bytes(bytes(SIZE))
    pair.receive(tmp_path / "sink.img", SIZE)
    # Only now: on a busy machine the sink takes longer than that to start.
    pair.source.stop()
    pair.source.options = {"dead_man_seconds": DEAD_MAN_SECONDS}
    pair.source.start()
    copy = pair.copy(source, limit=3 * MIB)
    pair.source.until(copy.id, lambda job: job.progress.committed_bytes > 0)
    return copy


@pytest.mark.parametrize("sink_dials", [False, True], ids=["push", "pull"])
def test_a_held_source_is_not_kept_alive_by_its_peer(tmp_path: Path, sink_dials: bool) -> None:
    with Pair(tmp_path, sink_dials=sink_dials) as pair:
        copy = begun(pair, tmp_path)
        update = agent_pb2.UpdateJobRequest(job_id=copy.id, paused=True)
        pair.source.stub().UpdateJob(update, timeout=10)
        # A controller that watches keeps it, however long it is held.
        watch = pair.source.watch(copy.id, timeout=DEAD_MAN_SECONDS * 1.6)
        with pytest.raises(grpc.RpcError, match="DEADLINE_EXCEEDED"):
            list(watch)
        assert pair.source.process is not None
        assert pair.source.process.poll() is None, pair.source.log()

        pair.source.channels.close()
        assert pair.source.process.wait(WAIT_SECONDS) == 0
        assert "neither controller nor peer was heard" in pair.source.log()


def test_a_pair_at_work_needs_no_controller(tmp_path: Path) -> None:
    with Pair(tmp_path) as pair:
        begun(pair, tmp_path)
        pair.source.channels.close()
        assert pair.source.process is not None
        assert pair.source.process.wait(WAIT_SECONDS) == 0
        assert "SUCCEEDED" in pair.source.log()
    assert (tmp_path / "sink.img").read_bytes() == (tmp_path / "source.img").read_bytes()


def test_of_one_instance_none_ends_while_another_is_needed(tmp_path: Path) -> None:
    authority = Authority.create(MIGRATION_ID)
    options = {"dead_man_seconds": 2, "run_directory": str(tmp_path / "run")}
    idle, needed = (
        AgentProcess(role, tmp_path / role.value, authority, options)
        for role in (Role.SOURCE, Role.SINK)
    )
    with closing(idle), closing(needed):
        for agent in (idle, needed):
            agent.configure()
            agent.start()
        stub = needed.stub(bootstrap=True)
        until = time.monotonic() + 7
        while time.monotonic() < until:
            stub.Describe(agent_pb2.DescribeRequest(), timeout=10)
            assert idle.process is not None
            assert idle.process.poll() is None, idle.log()
            time.sleep(0.1)
        for agent in (idle, needed):
            assert agent.process is not None
            assert agent.process.wait(WAIT_SECONDS) == 0
            assert "neither controller nor peer was heard" in agent.log()


@pytest.mark.skipif(bool(why_guests_cannot_run()), reason=why_guests_cannot_run())
def test_an_instance_powers_itself_off_when_the_last_of_its_agents_is_forgotten(
    tmp_path: Path,
) -> None:
    """From the real user-data, in an embedded cloud."""
    quick = Timings(*[0.02] * 6)
    lanes = [Authority.create(f"pair-x-{number}") for number in range(3)]

    def user_data(address: str) -> bytes:
        told = []
        for number, authority in enumerate(lanes):
            first = authority.bootstrap(Role.SINK, 1)
            config = {
                "version": 1, "migration_id": authority.migration_id, "role": "sink", "epoch": 1,
                "listen": [address], "port": 7443 + number, "certificate": "bootstrap.crt",
                "key": "bootstrap.key", "authority": "authority.crt", "power_off": True,
                "state_directory": f"/var/lib/blockferry/{number}",
                "run_directory": "/run/blockferry", "dead_man_seconds": DEAD_MAN_SECONDS,
            }  # fmt: skip
            told.append(AgentData(config, {
                "bootstrap.crt": first.certificate_pem, "bootstrap.key": first.key_pem,
                "authority.crt": authority.migration_root_pem,
            }))  # fmt: skip
        return build_user_data(agents=told, prepared=True, wheels="")

    with (
        EmbeddedCloud("idle", tmp_path, timings=quick, prepared_version=__version__) as cloud,
        cloud.connect() as client,
    ):
        network = next(one for one in client.network.networks() if not one.is_router_external)
        port = client.network.create_port(network_id=network.id)
        address = port.fixed_ips[0]["ip_address"]
        prepared = next(one for one in client.image.images() if one.name == "blockferry")
        server: Any = client.compute.create_server(
            name="idle", image_id=prepared.id, flavor_id=next(client.compute.flavors()).id,
            networks=[{"port": port.id}],
            user_data=base64.b64encode(user_data(address)).decode(),
        )  # fmt: skip
        client.compute.wait_for_server(server, interval=0.02, wait=20)
        agent = GrpcAgent.connect(
            f"{address}:7444",
            identity=Identity(lanes[1].migration_id, Role.SINK, 1),
            credentials=lanes[1].controller(1),
            root_pem=lanes[1].bootstrap_root_pem,
            bootstrap=True,
        )
        with closing(agent):
            until = time.monotonic() + 3 * DEAD_MAN_SECONDS
            while time.monotonic() < until:
                assert not agent.describe().busy
                assert client.compute.get_server(server).status == "ACTIVE"
                time.sleep(0.2)
        client.compute.wait_for_server(server, status="SHUTOFF", interval=0.1, wait=WAIT_SECONDS)
        client.compute.delete_server(server)
        client.compute.wait_for_delete(server, interval=0.02, wait=10)
        assert cloud.problems == []
