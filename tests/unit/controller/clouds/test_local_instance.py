"""What an instance that is a process of this machine must never do."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from blockferry.identity import Role
from blockferry_controller.clouds.local import LocalCloud, instance
from blockferry_controller.clouds.local.instance import LocalInstance
from blockferry_controller.clouds.port import Tag
from blockferry_controller.delivery.user_data import build_user_data
from blockferry_controller.migration.authority import Authority
from tests.agents import AgentProcess


def test_it_never_powers_its_machine_off(tmp_path: Path) -> None:
    asked = {"version": 1, "power_off": True, "state_directory": "/var/lib/blockferry"}
    user_data = build_user_data(config=asked, files={}, prepared=True, wheels="")
    instance = LocalInstance(tmp_path)
    instance.start(user_data)
    instance.stop()
    config = json.loads((tmp_path / "etc" / "agent.json").read_bytes())
    assert config["power_off"] is False
    assert config["state_directory"] == str(tmp_path / "state")


def test_what_an_earlier_controller_left_is_not_taken_for_ours(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cloud = LocalCloud(tmp_path)
    place = tmp_path / "m-test" / "source-server"
    (place / "etc").mkdir(parents=True)
    config = str(place / "etc" / "agent.json")
    with subprocess.Popen(
        [sys.executable, "-c", "import time; print(1, flush=True); time.sleep(50)", config],
        stdout=subprocess.PIPE,
    ) as orphan:
        assert orphan.stdout is not None
        orphan.stdout.readline()
        (place / "pid").write_text(str(orphan.pid))
        assert LocalInstance(place).running()
        reaped: dict[int, subprocess.Popen[bytes]] = {}
        monkeypatch.setattr(instance, "_children", reaped)
        monkeypatch.setattr(LocalInstance, "_wait", lambda *_: orphan.wait(10) is not None)

        cloud.ensure_port(Tag("m-test", "source-port"), "loopback", "")

        assert orphan.wait(10) != 0
    assert not LocalInstance(place).running()


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
