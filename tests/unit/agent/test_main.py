import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from blockferry_agent.__main__ import main
from tests.unit.agent.test_config import GOOD


def test_help_names_the_command(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["serve", "--help"])
    assert caught.value.code == 0
    assert "--config" in capsys.readouterr().out


@pytest.mark.parametrize("arguments", [[], ["serve"], ["fly"]], ids=["none", "no-file", "unknown"])
def test_a_wrong_command_line_is_usage(arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2


def serve(path: Path) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "blockferry_agent", "serve", "--config", str(path)],
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
        env={**os.environ, "PYTHONWARNINGS": "error"},
    )


def test_no_configuration_is_not_found(tmp_path: Path) -> None:
    done = serve(tmp_path / "agent.json")
    assert done.returncode == 11
    assert str(tmp_path / "agent.json") in done.stderr
    assert "Traceback" not in done.stderr


def test_missing_credentials_are_named(tmp_path: Path) -> None:
    path = tmp_path / "agent.json"
    path.write_text(json.dumps({**GOOD, "listen": ["127.0.0.1"], "port": 0}))
    done = serve(path)
    assert done.returncode == 2
    assert "authority.crt" in done.stderr
    assert "Traceback" not in done.stderr
