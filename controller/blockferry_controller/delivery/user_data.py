"""The user-data of a temp instance: what its agents are told, and how to start them.

Rules:
* Built as a dict and dumped as YAML: no value is ever pasted into a text. What
  does not differ from instance to instance is written down, with its reasons, in
  cloud-init/cloud-config.yaml and the systemd unit beside it.
* Whoever may ask the cloud about the server reads all of it. So the key in it
  is good for one first contact, and replaced then.
* Nova takes 65,535 characters of base64 (api-ref: servers, user_data). cloud-init
  unpacks gzip by itself, so the document goes compressed. The agent would not fit
  for long: a stock image gets its SHA-256 and waits for it, see delivery.first_contact.
"""

import base64
import copy
import functools
import gzip
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import yaml
from msgspec import Struct

from blockferry.errors import InternalError, UsageError
from blockferry_controller.delivery.bundle import bundle_digest, package_directory

USER_DATA_MAX_CHARS: Final = 65_535
"""Nova's limit, in characters of base64."""

CONFIG_DIRECTORY: Final = "/etc/blockferry"
AGENT_DIRECTORY: Final = "/opt/blockferry"
UNIT: Final = "blockferry-agent@.service"
UNIT_PATH: Final = f"/etc/systemd/system/{UNIT}"
LOCKS: Final = ("requirements.lock", "pip.lock")

_HEADER: Final = "#cloud-config\n"
_FILE_NAME: Final = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")


class AgentData(Struct, frozen=True):
    """What one agent of an instance is told.

    Attributes:
        config: Its configuration, agent.json.
        files: What that names, beside it: a plain name and the content. All are 0600.
    """

    config: Mapping[str, Any]
    files: Mapping[str, bytes]


def agent_directory(number: int) -> str:
    """Where the agent of that number, from 0 on, has its configuration."""
    return f"{CONFIG_DIRECTORY}/{number}"


def build_user_data(*, agents: Sequence[AgentData], prepared: bool, wheels: str) -> bytes:
    """User-data for one instance, before base64; the same input gives the same bytes.

    Args:
        agents: At least one; each has a directory and a process of its own.
        prepared: The image holds /opt/blockferry/bin/blockferry-agent already, so
            nothing is installed.
        wheels: Index or page the compiled wheels come from; empty for pip's default.

    Raises:
        UsageError: USER_DATA_TOO_LARGE, with `size_chars` and `limit_chars`;
            FILE_NAME for a name that is not plain.
    """
    document = copy.deepcopy(_skeleton())
    document["write_files"] = [
        _file(UNIT_PATH, cloud_init_file(UNIT).encode(), "0644"),
        *(file for number, one in enumerate(agents) for file in _configuration(number, one)),
    ]
    units = [UNIT.replace("@", f"@{number}") for number in range(len(agents))]
    document["runcmd"].append(["systemctl", "enable", "--now", *units])
    if not prepared:
        document["write_files"] += _installation()
        document["runcmd"].insert(0, _install_command(wheels))
    text = yaml.dump(document, Dumper=_Dumper, sort_keys=False, width=1_000)
    packed = gzip.compress((_HEADER + text).encode(), mtime=0)
    _check_size(packed)
    return packed


@functools.cache
def _skeleton() -> dict[str, Any]:
    """What is the same for all instances."""
    document: dict[str, Any] = yaml.safe_load(cloud_init_file("cloud-config.yaml"))
    return document


def read_user_data(user_data: bytes) -> dict[str, tuple[bytes, int]]:
    """The files that an instance with this user-data gets: path to content and mode."""
    found = {}
    document = yaml.load(user_data_text(user_data), Loader=_SafeLoader)  # noqa: S506 - it is safe
    for entry in document.get("write_files", []):
        content, encoding = entry["content"], entry.get("encoding", "")
        raw = base64.b64decode(content) if "b64" in encoding else content.encode()
        if encoding.startswith("gz"):
            raw = gzip.decompress(raw)
        found[entry["path"]] = (raw, int(entry.get("permissions", "0644"), 8))
    return found


def user_data_text(user_data: bytes) -> str:
    """The cloud-config as text, for people and for `cloud-init schema`: holds a key."""
    return gzip.decompress(user_data).decode()


@functools.cache
def cloud_init_file(name: str) -> str:
    """A file of cloud-init/: inside the installed package, or of the checkout it runs from.

    Raises:
        InternalError: CLOUD_INIT_MISSING.
    """
    package = Path(__file__).resolve().parents[1]
    for directory in (package / "cloud_init", package.parents[1] / "cloud-init"):
        path = directory / name
        if path.is_file():
            return path.read_text(encoding="utf-8")
    raise InternalError(
        "CLOUD_INIT_MISSING", f"{name} is missing from this installation; install it again"
    )


def _configuration(number: int, agent: AgentData) -> Iterator[dict[str, str]]:
    for name in agent.files:
        if _FILE_NAME.fullmatch(name) is None or name == "agent.json":
            raise UsageError("FILE_NAME", f"not a plain file name: {name!r}", name=name)
    yield _file(
        f"{agent_directory(number)}/agent.json",
        (json.dumps(agent.config, indent=1) + "\n").encode(),
    )
    for name, content in agent.files.items():
        yield _file(f"{agent_directory(number)}/{name}", content)


def _installation() -> list[dict[str, str]]:
    locks = package_directory("blockferry_agent")
    content = {
        "install.py": cloud_init_file("install.py").encode(),
        "agent.sha256": f"{bundle_digest()}\n".encode(),
        **{name: (locks / name).read_bytes() for name in LOCKS},
    }
    return [_file(f"{AGENT_DIRECTORY}/{name}", data) for name, data in content.items()]


def _install_command(wheels: str) -> list[str]:
    command = ["python3", f"{AGENT_DIRECTORY}/install.py"]
    return [*command, "--wheels", wheels] if wheels else command


def _file(path: str, content: bytes, permissions: str = "0600") -> dict[str, str]:
    entry = {"path": path, "permissions": permissions}
    try:
        return {**entry, "content": content.decode("ascii")}
    except UnicodeDecodeError:
        return {**entry, "encoding": "b64", "content": base64.b64encode(content).decode()}


def base64_length(user_data: bytes) -> int:
    """Characters of base64, which is what clouds limit."""
    return -(-len(user_data) // 3) * 4


def _check_size(packed: bytes) -> None:
    size_chars = base64_length(packed)
    if size_chars > USER_DATA_MAX_CHARS:
        raise UsageError(
            "USER_DATA_TOO_LARGE",
            f"the instance's user-data has {size_chars} characters of base64, and a cloud takes "
            f"{USER_DATA_MAX_CHARS}; use an image that holds the agent (image property "
            "blockferry_agent)",
            size_chars=size_chars,
            limit_chars=USER_DATA_MAX_CHARS,
        )


_SafeDumper: Any = getattr(yaml, "CSafeDumper", yaml.SafeDumper)
_SafeLoader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
"""libyaml's are ten times as fast; a fleet makes user-data twice a volume."""


class _Dumper(_SafeDumper):  # type: ignore[misc]
    """Shows texts of several lines as such: readable, and it compresses better."""


def _represent_text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    style = "|" if "\n" in text else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Dumper.add_representer(str, _represent_text)
