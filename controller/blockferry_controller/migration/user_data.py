"""The user-data of a temp instance: the agent, its configuration, and how to start it.

Rules:
* Built as a dict and dumped as YAML: no value is ever pasted into a text. What
  does not differ from instance to instance is written down, with its reasons, in
  cloud-init/cloud-config.yaml and the systemd unit beside it.
* Whoever may ask the cloud about the server reads all of it. So the key in it
  is good for one first contact, and replaced then.
* Nova takes 65,535 characters of base64 (api-ref: servers, user_data). cloud-init
  unpacks gzip by itself, so the document goes compressed.
"""

import base64
import gzip
import json
import re
from collections.abc import Mapping
from typing import Any, Final

import yaml

from blockferry.errors import UsageError
from blockferry_controller.migration.bundle import UNPACK, cloud_init_file, pack_bundle

USER_DATA_MAX_CHARS: Final = 65_535
"""Nova's limit, in characters of base64."""

CONFIG_DIRECTORY: Final = "/etc/blockferry"
AGENT_DIRECTORY: Final = "/opt/blockferry"
UNIT_PATH: Final = "/etc/systemd/system/blockferry-agent.service"

_HEADER: Final = "#cloud-config\n"
_FILE_NAME: Final = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")


def build_user_data(
    *, config: Mapping[str, Any], files: Mapping[str, bytes], prepared: bool, wheels: str
) -> bytes:
    """User-data for one instance, before base64; the same input gives the same bytes.

    Args:
        config: The agent's configuration, written to /etc/blockferry/agent.json.
        files: What it names, beside it: a plain name and the content. All are 0600.
        prepared: The image holds /opt/blockferry/bin/blockferry-agent already, so
            neither agent nor installer is carried.
        wheels: Index or page the compiled wheels come from; empty for pip's default.

    Raises:
        UsageError: USER_DATA_TOO_LARGE, with `size_chars`, `limit_chars` and `bundle_bytes`;
            FILE_NAME for a name that is not plain.
    """
    document = yaml.safe_load(cloud_init_file("cloud-config.yaml"))
    document["write_files"] = _configuration(config, files)
    if not prepared:
        document["write_files"].append(_file(f"{AGENT_DIRECTORY}/agent.bz2", pack_bundle()))
        document["runcmd"][:0] = _install_commands(wheels)
    text = yaml.dump(document, Dumper=_Dumper, sort_keys=False, width=1_000)
    packed = gzip.compress((_HEADER + text).encode(), mtime=0)
    _check_size(packed, prepared=prepared)
    return packed


def read_user_data(user_data: bytes) -> dict[str, tuple[bytes, int]]:
    """The files that an instance with this user-data gets: path to content and mode."""
    found = {}
    for entry in yaml.safe_load(user_data_text(user_data)).get("write_files", []):
        content, encoding = entry["content"], entry.get("encoding", "")
        raw = base64.b64decode(content) if "b64" in encoding else content.encode()
        if encoding.startswith("gz"):
            raw = gzip.decompress(raw)
        found[entry["path"]] = (raw, int(entry.get("permissions", "0644"), 8))
    return found


def user_data_text(user_data: bytes) -> str:
    """The cloud-config as text, for people and for `cloud-init schema`: holds a key."""
    return gzip.decompress(user_data).decode()


def _configuration(config: Mapping[str, Any], files: Mapping[str, bytes]) -> list[dict[str, str]]:
    for name in files:
        if _FILE_NAME.fullmatch(name) is None or name == "agent.json":
            raise UsageError("FILE_NAME", f"not a plain file name: {name!r}", name=name)
    content = {"agent.json": (json.dumps(config, indent=1) + "\n").encode(), **files}
    return [
        _file(UNIT_PATH, _unit(), "0644"),
        *(_file(f"{CONFIG_DIRECTORY}/{name}", data, "0600") for name, data in content.items()),
    ]


def _unit() -> bytes:
    """The systemd unit without its comments: they are for readers of cloud-init/."""
    lines = cloud_init_file("blockferry-agent.service").splitlines(keepends=True)
    return "".join(line for line in lines if not line.startswith("#")).encode()


def _install_commands(wheels: str) -> list[list[str]]:
    install = ["python3", f"{AGENT_DIRECTORY}/install.py"]
    return [
        ["python3", "-c", UNPACK, AGENT_DIRECTORY],
        [*install, "--wheels", wheels] if wheels else install,
    ]


def _file(path: str, content: bytes, permissions: str = "0600") -> dict[str, str]:
    entry = {"path": path, "permissions": permissions}
    try:
        return {**entry, "content": content.decode("ascii")}
    except UnicodeDecodeError:
        return {**entry, "encoding": "b64", "content": base64.b64encode(content).decode()}


def _check_size(packed: bytes, *, prepared: bool) -> None:
    size_chars = len(base64.b64encode(packed))
    if size_chars <= USER_DATA_MAX_CHARS:
        return
    bundle_bytes = 0 if prepared else len(pack_bundle())
    raise UsageError(
        "USER_DATA_TOO_LARGE",
        f"the instance's user-data has {size_chars} characters, {bundle_bytes} bytes of it the "
        f"agent, and a cloud takes {USER_DATA_MAX_CHARS}; use an image that holds the agent "
        "(image property blockferry_agent)",
        size_chars=size_chars,
        limit_chars=USER_DATA_MAX_CHARS,
        bundle_bytes=bundle_bytes,
    )


class _Dumper(yaml.SafeDumper):
    """Shows texts of several lines as such: readable, and it compresses better."""


def _represent_text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    style = "|" if "\n" in text else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Dumper.add_representer(str, _represent_text)
