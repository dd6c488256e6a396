"""What an instance that is a process of this machine must never do."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from blockferry.errors import UnreachableError
from blockferry.identity import Role
from blockferry_controller.clouds.local import instance
from blockferry_controller.clouds.local.cloud import LocalCloud
from blockferry_controller.clouds.local.fork_server import ForkServer
from blockferry_controller.clouds.local.instance import LocalInstance
from blockferry_controller.clouds.port import Tag
from blockferry_controller.delivery.user_data import AgentData, build_user_data
from blockferry_controller.migration.authority import Authority
from tests.agents import AgentProcess


def test_it_never_powers_its_machine_off(tmp_path: Path) -> None:
    asked = {"version": 1, "power_off": True, "state_directory": "/var/lib/blockferry"}
    user_data = build_user_data(agents=[AgentData(asked, {})], prepared=True, wheels="")
    one = LocalInstance(tmp_path)
    one.start(user_data)
    one.stop()
    config = json.loads((tmp_path / "etc" / "agent.json").read_bytes())
    assert config["power_off"] is False
    assert config["state_directory"] == str(tmp_path / "state")


def test_what_an_earlier_controller_left_is_not_taken_for_ours(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cloud = LocalCloud(tmp_path)
    place = tmp_path / "m-test" / "source-server"
    place.mkdir(parents=True)
    with subprocess.Popen(
        [sys.executable, "-c", "import time; print(1, flush=True); time.sleep(50)"],
        stdout=subprocess.PIPE, cwd=place,
    ) as orphan:  # fmt: skip
        assert orphan.stdout is not None
        orphan.stdout.readline()
        (place / "pid").write_text(str(orphan.pid))
        assert LocalInstance(place).running()
        monkeypatch.setattr(LocalInstance, "_wait", lambda *_: orphan.wait(10) is not None)

        cloud.ensure_port(Tag("m-test", "source-port"), "loopback", "")

        assert orphan.wait(10) != 0
    assert not LocalInstance(place).running()


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[ForkServer]:
    """A fork server of the test's own, which it may kill."""
    made = ForkServer()
    monkeypatch.setattr(instance, "FORK_SERVER", made)
    yield made
    made.close()


def started(directory: Path) -> LocalInstance:
    """An agent of this machine, of a migration that does not exist."""
    authority = Authority.create("m-test")
    bootstrap = authority.bootstrap(Role.SINK, 1)
    config = {
        "version": 1, "migration_id": "m-test", "role": "sink", "epoch": 1,
        "listen": ["127.0.0.1"], "port": 0, "certificate": "bootstrap.crt",
        "key": "bootstrap.key", "authority": "authority.crt", "state_directory": "",
    }  # fmt: skip
    files = {
        "bootstrap.crt": bootstrap.certificate_pem,
        "bootstrap.key": bootstrap.key_pem,
        "authority.crt": authority.migration_root_pem,
    }
    made = LocalInstance(directory)
    made.start(build_user_data(agents=[AgentData(config, files)], prepared=True, wheels=""))
    return made


def until(holds: Callable[[], bool]) -> None:
    """Wait, at most 20 s."""
    deadline = time.monotonic() + 20
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_agents_are_forks_that_say_where_they_are(tmp_path: Path, server: ForkServer) -> None:
    instances = [started(tmp_path / name) for name in ("a", "b")]
    for place, one in zip(("a", "b"), instances, strict=True):
        until((tmp_path / place / "state" / "listening.json").exists)
        assert one.running()
        assert "listens on port" in one.console()
    instances[0].stop()
    assert [one.running() for one in instances] == [False, True]
    instances[1].stop()
    assert not instances[1].running()


def test_agents_share_a_session_that_is_not_the_terminals(
    tmp_path: Path, server: ForkServer
) -> None:
    sessions = set()
    for name in ("a", "b"):
        started(tmp_path / name)
        sessions.add(os.getsid(int((tmp_path / name / "pid").read_text())))
    assert sessions == {server.start()}
    assert os.getsid(0) not in sessions


def test_agents_finish_their_turns(tmp_path: Path, server: ForkServer) -> None:
    started(tmp_path / "a")
    until((tmp_path / "a" / "state" / "listening.json").exists)
    agent = int((tmp_path / "a" / "pid").read_text())
    threads = [int(one.name) for one in Path(f"/proc/{agent}/task").iterdir()]
    assert len(threads) > 1
    assert {os.sched_getscheduler(thread) for thread in threads} == {os.SCHED_BATCH}
    assert os.sched_getscheduler(0) == os.SCHED_OTHER


def test_agents_end_with_their_fork_server_and_another_is_started(
    tmp_path: Path, server: ForkServer
) -> None:
    first = started(tmp_path / "a")
    until((tmp_path / "a" / "state" / "listening.json").exists)
    os.kill(server.start(), signal.SIGKILL)
    until(lambda: not first.running())

    second = started(tmp_path / "b")
    until((tmp_path / "b" / "state" / "listening.json").exists)
    second.stop()


def test_what_cannot_be_started_is_said_and_nothing_hangs(
    tmp_path: Path, server: ForkServer
) -> None:
    with pytest.raises(UnreachableError, match="No such file or directory"):
        server.fork(tmp_path / "agent.json", tmp_path / "nowhere", tmp_path / "log")
    with pytest.raises(UnreachableError, match="No such file or directory"):
        server.fork(tmp_path / "agent.json", tmp_path, tmp_path / "nowhere" / "log")


def test_an_agent_whose_controller_died_before_it_looked_ends(tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", ""]) as gone:
        gone.wait(10)
    options: dict[str, object] = {"parent_pid": gone.pid}
    agent = AgentProcess(Role.SINK, tmp_path / "sink", Authority.create("m-test"), options)
    agent.configure()
    agent.start()
    try:
        assert agent.process is not None
        assert agent.process.wait(10) == 0
    finally:
        agent.close()
