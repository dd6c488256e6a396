import json
from pathlib import Path
from typing import Any

import pytest

from blockferry.errors import NotFoundError, UsageError
from blockferry.identity import Identity, Role
from blockferry_agent.config import load_config

GOOD: dict[str, Any] = {
    "version": 1,
    "migration_id": "m-1",
    "role": "sink",
    "epoch": 2,
    "listen": ["10.0.0.5", "fd00::5"],
    "certificate": "bootstrap.crt",
    "key": "/elsewhere/bootstrap.key",
    "authority": "authority.crt",
    "state_directory": "state",
}


def written(directory: Path, **changes: Any) -> Path:
    path = directory / "agent.json"
    values = {key: value for key, value in {**GOOD, **changes}.items() if value is not None}
    path.write_text(json.dumps(values))
    return path


def test_a_good_file(tmp_path: Path) -> None:
    config = load_config(written(tmp_path))
    assert config.identity == Identity("m-1", Role.SINK, 2)
    assert config.listen == ("10.0.0.5", "fd00::5")
    assert config.port == 7443
    assert config.certificate == tmp_path / "bootstrap.crt"
    assert config.key == Path("/elsewhere/bootstrap.key")
    assert config.state_directory == tmp_path / "state"
    assert config.dead_man_seconds == 900
    assert not config.exit_with_parent
    assert not config.power_off


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("version", 2),
        ("version", True),
        ("migration_id", "Not An Id"),
        ("role", "controller"),
        ("epoch", 0),
        ("epoch", "1"),
        ("listen", []),
        ("listen", "10.0.0.5"),
        ("listen", ["not-an-address"]),
        ("port", 65536),
        ("port", -1),
        ("certificate", ""),
        ("key", 5),
        ("state_directory", "with\0nul"),
        ("dead_man_seconds", 0),
        ("dead_man_seconds", "900"),
        ("exit_with_parent", "yes"),
        ("tunnel_address", "controller.example:7444"),
        ("tunnel_address", "192.0.2.7"),
        ("tunnel_address", "192.0.2.7:0"),
        ("tunnel_hello", "two\nlines"),
        ("tunnel_hello", "x" * 200),
    ],
)
def test_a_bad_value_is_named(tmp_path: Path, key: str, value: object) -> None:
    path = written(tmp_path, **{key: value})
    with pytest.raises(UsageError, match=f"{path}.*'{key}'"):
        load_config(path)


@pytest.mark.parametrize("key", [*GOOD])
def test_a_missing_key_is_named(tmp_path: Path, key: str) -> None:
    with pytest.raises(UsageError, match=f"lacks the key '{key}'"):
        load_config(written(tmp_path, **{key: None}))


def test_unknown_keys_are_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="unknown keys: listn, rolle"):
        load_config(written(tmp_path, rolle="sink", listn=[]))


@pytest.mark.parametrize("text", ["", "[]", "{", "\xff", '{"a": NaN', "5", "x" * 70_000])
def test_what_is_no_configuration(tmp_path: Path, text: str) -> None:
    path = tmp_path / "agent.json"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(UsageError) as caught:
        load_config(path)
    assert caught.value.reason == "CONFIG_INVALID"


def test_no_file(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError):
        load_config(tmp_path / "agent.json")
    with pytest.raises(UsageError):
        load_config(tmp_path)
