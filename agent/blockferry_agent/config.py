"""The agent's configuration: one JSON file, checked whole before anything starts.

    version            1
    migration_id       2 to 40 of [a-z0-9-]
    role               "source" or "sink"
    epoch              at least 1; of the controller that wrote the file
    listen             addresses to bind, IPv4 or IPv6, at least one
    port               0 lets the kernel choose; see listening.json
    certificate, key   what cloud-init carried; gone once an identity is adopted
    authority          root of the migration: the only one that clients may have
    state_directory    made with mode 0700
    run_directory      shared by the agents of an instance, see neighbours.py (default: alone)
    dead_man_seconds   silence of controller and peer after which the agent stops
    power_off          whether it then powers the instance off, when no other agent of it is
                       needed (default false)
    exit_with_parent   stop when the parent process ends (default false)
    tunnel_address     `host:port` of a controller that may not reach us (default: none)
    tunnel_hello       what we say there first; needed with tunnel_address
    parent_pid         its pid, in case it ends before we look (default 0: look)

Relative paths are relative to the file's directory.
"""

import ipaddress
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeVar

from blockferry.errors import NotFoundError, UsageError
from blockferry.identity import Identity, Role, is_migration_id
from blockferry.limits import AGENT_PORT, DEAD_MAN_SECONDS, TUNNEL_HELLO_MAX_BYTES

T = TypeVar("T")

_FILE_MAX_BYTES: Final = 64 * 1024
_AGENT_ROLES: Final = {"source": Role.SOURCE, "sink": Role.SINK}


@dataclass(frozen=True, slots=True)
class AgentConfig:
    """What the file says; paths are absolute."""

    path: Path
    identity: Identity
    listen: tuple[str, ...]
    port: int
    certificate: Path
    key: Path
    authority: Path
    state_directory: Path
    dead_man_seconds: float
    power_off: bool
    exit_with_parent: bool
    run_directory: Path | None = None
    parent_pid: int = 0
    tunnel_address: str = ""
    tunnel_hello: str = ""


def load_config(path: Path) -> AgentConfig:
    """Read and check the file.

    Raises:
        NotFoundError: CONFIG_NOT_FOUND.
        UsageError: CONFIG_INVALID, naming file and key.
    """
    values = _Values(path, _read(path))
    values.take("version", _version)
    migration_id = values.take("migration_id", _migration_id)
    role = values.take("role", _role)
    epoch = values.take("epoch", _whole_number(1, 10**18 - 1))
    base = path.parent.absolute()
    shared = values.take("run_directory", _text, "")
    config = AgentConfig(
        path=path.absolute(),
        identity=Identity(migration_id, role, epoch),
        listen=values.take("listen", _addresses),
        port=values.take("port", _whole_number(0, 65535), AGENT_PORT),
        certificate=base / values.take("certificate", _text),
        key=base / values.take("key", _text),
        authority=base / values.take("authority", _text),
        state_directory=base / values.take("state_directory", _text),
        run_directory=base / shared if shared else None,
        dead_man_seconds=values.take("dead_man_seconds", _seconds, float(DEAD_MAN_SECONDS)),
        power_off=values.take("power_off", _flag, False),
        exit_with_parent=values.take("exit_with_parent", _flag, False),
        parent_pid=values.take("parent_pid", _whole_number(0, 2**31), 0),
        tunnel_address=values.take("tunnel_address", _host_and_port, ""),
        tunnel_hello=values.take("tunnel_hello", _hello, ""),
    )
    values.refuse_rest()
    return config


def _read(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as file:
            text = file.read(_FILE_MAX_BYTES + 1)
    except FileNotFoundError as error:
        raise NotFoundError(
            "CONFIG_NOT_FOUND", f"There is no configuration file {path}.", path=path
        ) from error
    except OSError as error:
        raise _invalid(path, f"cannot be read: {error.strerror}") from error
    if len(text) > _FILE_MAX_BYTES:
        raise _invalid(path, f"is larger than {_FILE_MAX_BYTES} bytes")
    try:
        values = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise _invalid(path, f"is not JSON: {error}") from error
    if not isinstance(values, dict):
        raise _invalid(path, "is not a JSON object")
    return values


class _Values:
    """Takes the values out one by one, so that what is left is unknown."""

    def __init__(self, path: Path, values: dict[str, Any]) -> None:
        self._path = path
        self._values = values

    def take(self, key: str, read: Callable[[Any], T], default: T | None = None) -> T:
        if key not in self._values:
            if default is None:
                raise _invalid(self._path, f"lacks the key {key!r}")
            return default
        try:
            return read(self._values.pop(key))
        except ValueError as error:
            raise _invalid(self._path, f"has a bad {key!r}: {error}") from error

    def refuse_rest(self) -> None:
        if self._values:
            raise _invalid(self._path, f"has unknown keys: {', '.join(sorted(self._values))}")


def _invalid(path: Path, what: str) -> UsageError:
    return UsageError("CONFIG_INVALID", f"The configuration file {path} {what}.", path=path)


def _version(value: Any) -> int:
    if value != 1 or isinstance(value, bool):
        raise ValueError("this agent reads version 1")
    return 1


def _migration_id(value: Any) -> str:
    if not isinstance(value, str) or not is_migration_id(value):
        raise ValueError("must be 2 to 40 of [a-z0-9-]")
    return value


def _role(value: Any) -> Role:
    if not isinstance(value, str) or value not in _AGENT_ROLES:
        raise ValueError("must be source or sink")
    return _AGENT_ROLES[value]


def _addresses(value: Any) -> tuple[str, ...]:
    if not isinstance(value, list) or not value:
        raise ValueError("must be a list of at least one address")
    return tuple(str(ipaddress.ip_address(_text(address))) for address in value)


def _text(value: Any) -> str:
    if not isinstance(value, str) or not value or "\0" in value:
        raise ValueError("must be a string, not empty")
    return value


def _host_and_port(value: Any) -> str:
    host, _, port = _text(value).rpartition(":")
    ipaddress.ip_address(host.strip("[]"))
    if not port.isdigit() or not 1 <= int(port) <= 65535:
        raise ValueError("must be an address and a port")
    return str(value)


def _hello(value: Any) -> str:
    text = _text(value)
    if not text.isascii() or not text.isprintable() or len(text) >= TUNNEL_HELLO_MAX_BYTES:
        raise ValueError(f"must be less than {TUNNEL_HELLO_MAX_BYTES} printable characters")
    return text


def _flag(value: Any) -> bool:
    if not isinstance(value, bool):
        raise ValueError("must be true or false")  # noqa: TRY004 - one error class for all
    return value


def _seconds(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 1 <= value <= 1e7:
        raise ValueError("must be a number of seconds from 1 on")
    return float(value)


def _whole_number(least: int, most: int) -> Callable[[Any], int]:
    def read(value: Any) -> int:
        if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
            raise ValueError(f"must be a whole number in [{least}, {most}]")
        return value

    return read
