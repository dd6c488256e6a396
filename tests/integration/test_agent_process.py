"""An agent as a process: how it starts, how large it gets, how it ends."""

import contextlib
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest

from blockferry.identity import Role
from blockferry.limits import GIB, MIB
from blockferry.v1 import agent_pb2
from blockferry_controller.migration.authority import Authority
from tests.agents import MIGRATION_ID, AgentProcess, Pair

RESIDENT_MAX = 256 * MIB


@pytest.fixture
def agent(tmp_path: Path) -> Iterator[AgentProcess]:
    made = AgentProcess(Role.SINK, tmp_path / "agent", Authority.create(MIGRATION_ID))
    made.configure()
    yield made
    made.close()


def ended(agent: AgentProcess, seconds: float = 20.0) -> int:
    assert agent.process is not None
    return agent.process.wait(seconds)


def test_it_listens_soon(agent: AgentProcess) -> None:
    began = time.monotonic()
    agent.start()
    # 0.25 s on an idle machine; the rest is for busy ones.
    assert time.monotonic() - began < 5.0
    told = json.loads((agent.directory / "state" / "listening.json").read_text())
    assert told == {"port": agent.port, "pid": agent.process.pid if agent.process else 0}


def test_sigterm_ends_it_in_order(agent: AgentProcess) -> None:
    agent.start()
    assert agent.stop() == 0
    assert "Traceback" not in agent.log()
    assert not (agent.directory / "state" / "listening.json").exists()


def free_port(*addresses: str) -> int:
    """A port that all addresses have free, below those that connections get at random."""
    for port in range(20_000 + os.getpid() % 5_000, 32_000):
        with contextlib.ExitStack() as held, contextlib.suppress(OSError):
            for address in addresses:
                held.enter_context(socket.socket()).bind((address, port))
            return port
    raise RuntimeError("no port is free")


def test_several_addresses_share_one_port_and_one_identity(agent: AgentProcess) -> None:
    addresses = ["127.0.0.1", "127.0.0.2"]
    agent.options["listen"] = addresses
    agent.port = free_port(*addresses)
    agent.start()
    agent.adopt()
    for epoch in (2, 3):
        for agent.host in addresses:
            told = agent.stub(epoch).Describe(agent_pb2.DescribeRequest(), timeout=10)
            assert (told.adopted, told.epoch) == (True, epoch)
        agent.adopt(epoch, bootstrap=False)
    for agent.host in addresses:
        with pytest.raises(grpc.RpcError):
            agent.stub(3, bootstrap=True).Describe(agent_pb2.DescribeRequest(), timeout=10)


def test_an_address_that_does_not_come_is_left_out(agent: AgentProcess) -> None:
    agent.options["listen"] = ["203.0.113.9", "127.0.0.1"]
    agent.start()
    socket.create_connection(("127.0.0.1", agent.port), timeout=5).close()


def test_a_port_that_is_taken_is_named(agent: AgentProcess, tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        agent.port = taken.getsockname()[1]
        with pytest.raises(AssertionError):
            agent.start()
    assert ended(agent) == 12
    assert f"Port {agent.port} of 127.0.0.1 is taken" in agent.log()
    assert "Traceback" not in agent.log()


def test_nobody_heard_ends_it(agent: AgentProcess) -> None:
    agent.options["dead_man_seconds"] = 1
    agent.start()
    assert ended(agent) == 0
    assert "neither controller nor peer was heard" in agent.log()


def test_its_parents_end_is_its_own(agent: AgentProcess) -> None:
    agent.start()
    agent.stop()
    command = [sys.executable, "-m", "blockferry_agent", "serve", "--config"]
    command.append(str(agent.directory / "agent.json"))
    parent = "import subprocess, sys, time; print(subprocess.Popen(sys.argv[1:]).pid, flush=True);"
    told = agent.directory / "state" / "listening.json"
    with subprocess.Popen(
        [sys.executable, "-c", parent + "time.sleep(60)", *command],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    ) as shell:
        assert shell.stdout is not None
        pid = int(shell.stdout.readline())
        until = time.monotonic() + 15
        while not told.exists():
            assert time.monotonic() < until
            time.sleep(0.01)
        shell.kill()
    while Path(f"/proc/{pid}").exists() and _state(pid) != "Z":
        assert time.monotonic() < until
        time.sleep(0.05)


def _state(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return "Z"


@pytest.mark.timeout(120)
def test_memory_does_not_grow_with_the_volume(tmp_path: Path) -> None:
    """1 GiB that does not compress: both agents stay below what a small flavor has."""
    source, sink = tmp_path / "source", tmp_path / "sink"
    noise = os.urandom(64 * MIB)
    with source.open("wb") as file:
        for _ in range(GIB // len(noise)):
            file.write(noise)
    sink.touch()
    os.truncate(sink, GIB)
    with Pair(tmp_path / "agents") as pair:
        copy, receive = pair.transfer(source, sink)
        assert copy.state == receive.state == agent_pb2.JOB_STATE_SUCCEEDED
        for agent in (pair.source, pair.sink):
            told = agent.stub().Describe(agent_pb2.DescribeRequest(), timeout=10)
            assert told.peak_resident_bytes < RESIDENT_MAX
    source.unlink()
    sink.unlink()
