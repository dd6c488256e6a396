"""What an instance that is a process of this machine must never do."""

import json
from pathlib import Path

from blockferry_controller.clouds.local.instance import LocalInstance
from blockferry_controller.migration.user_data import build_user_data


def test_it_never_powers_its_machine_off(tmp_path: Path) -> None:
    asked = {"version": 1, "power_off": True, "state_directory": "/var/lib/blockferry"}
    user_data = build_user_data(config=asked, files={}, prepared=True, wheels="")
    instance = LocalInstance(tmp_path)
    instance.start(user_data)
    instance.stop()
    config = json.loads((tmp_path / "etc" / "agent.json").read_bytes())
    assert config["power_off"] is False
    assert config["state_directory"] == str(tmp_path / "state")
