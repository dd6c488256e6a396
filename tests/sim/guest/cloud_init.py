"""cloud-init in miniature: the parts of cloud-config that our user-data uses.

Order and frequency are cloud-init's (config/cloud.cfg.tmpl): `bootcmd` runs at
every boot, before `write_files`; `write_files` and `runcmd` once an instance;
`runcmd` becomes one shell script that runs last, after deferred files.
"""

from __future__ import annotations

import base64
import grp
import gzip
import os
import pickle
import pwd
import shlex
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

MAX_UNPACKED_BYTES = 64 << 20
HONOURED = {"bootcmd", "write_files", "runcmd"}
WITHOUT_EFFECT = {
    *("users", "disable_root", "ssh_pwauth", "no_ssh_fingerprints", "package_update", "hostname"),
    *("package_upgrade", "final_message", "ssh_deletekeys", "growpart", "resize_rootfs", "locale"),
    *("manage_etc_hosts", "preserve_hostname", "timezone", "ntp", "output", "ssh_genkeytypes"),
}
"""Keys that change nothing an instance of the simulator has."""


class CloudInit:
    """One boot's run of cloud-init, inside the instance's root."""

    def __init__(
        self, instance_id: str, user_data: bytes, say: Callable[[str], None], console: int
    ) -> None:
        self._id = instance_id
        self._user_data = user_data
        self._say = say
        self._console = console
        self._home = Path("/var/lib/cloud/instances") / instance_id
        self._config: dict[str, Any] = {}

    def early(self) -> None:
        """The stages before most services: read the user-data, bootcmd, write_files."""
        self._say("cloud-init[1]: Cloud-init v. 24.4 running 'init'")
        self._read()
        self._run("bootcmd", "bootcmd")
        if self._once("write_files"):
            self._write_files(deferred=False)

    def final(self) -> None:
        """The last stage: deferred files, then the commands of `runcmd`."""
        self._say("cloud-init[1]: Cloud-init v. 24.4 running 'modules:final'")
        if self._once("write_files_deferred"):
            self._write_files(deferred=True)
        if self._once("runcmd"):
            self._run("runcmd", "scripts/runcmd")
        (self._home / "boot-finished").write_text("finished\n")
        self._say("cloud-init[1]: Cloud-init v. 24.4 finished. Datasource ConfigDrive.")

    def _once(self, what: str) -> bool:
        """True the first time in an instance's life."""
        semaphore = self._home / "sem" / f"config_{what}"
        if semaphore.exists():
            return False
        semaphore.write_text("done\n")
        return True

    # --- user-data ---

    def _read(self) -> None:
        text = self._unpacked()
        self._keep_copies(text)
        if not text.strip():
            return
        if text.startswith(b"#!"):
            self._config = {"runcmd": [["sh", "-c", text.decode()]]}
            return
        if not text.startswith(b"#cloud-config"):
            self._say("cloud-init[1]: WARNING: Unhandled non-multipart userdata, ignored")
            return
        try:
            config = yaml.safe_load(text)
        except yaml.YAMLError as error:
            self._say(f"cloud-init[1]: WARNING: Failed loading yaml blob. {error}")
            return
        if not isinstance(config, dict):
            self._say("cloud-init[1]: WARNING: cloud-config is not a mapping, ignored")
            return
        for key in sorted(set(config) - HONOURED - WITHOUT_EFFECT):
            self._say(f"cloud-init[1]: WARNING: the simulator ignores {key!r}")
        self._config = config

    def _unpacked(self) -> bytes:
        if self._user_data[:2] != b"\x1f\x8b":
            return self._user_data
        with gzip.open(_stream(self._user_data)) as packed:
            return packed.read(MAX_UNPACKED_BYTES)

    def _keep_copies(self, text: bytes) -> None:
        """Where real cloud-init leaves what it was given; all for root only."""
        for part in ("sem", "scripts"):
            (self._home / part).mkdir(parents=True, exist_ok=True)
        current = Path("/var/lib/cloud/instance")
        current.unlink(missing_ok=True)
        current.symlink_to(self._home)
        secret = {
            self._home / "user-data.txt": self._user_data,
            self._home / "user-data.txt.i": text,
            self._home / "cloud-config.txt": text,
            self._home / "obj.pkl": pickle.dumps(self._user_data),
            Path("/run/cloud-init/instance-data-sensitive.json"): base64.b64encode(text),
            Path("/run/cloud-init/combined-cloud-config.json"): base64.b64encode(text),
        }
        if (self._home / "sem/config_write_files").exists():
            return  # a later boot does not bring back what was removed
        for path, content in secret.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch(mode=0o600)
            path.write_bytes(content)

    # --- modules ---

    def _write_files(self, *, deferred: bool) -> None:
        for entry in self._config.get("write_files") or []:
            if bool(entry.get("defer", False)) != deferred:
                continue
            try:
                self._write_file(entry)
            except (OSError, ValueError, KeyError) as error:
                self._say(f"cloud-init[1]: WARNING: Failed writing {entry.get('path')}: {error}")

    def _write_file(self, entry: dict[str, Any]) -> None:
        path = Path(entry["path"])
        content = decoded(entry.get("content", ""), str(entry.get("encoding", "")))
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("ab" if entry.get("append") else "wb") as file:
            os.fchmod(file.fileno(), permissions(entry.get("permissions", 0o644)))
            file.write(content)
        user, _, group = str(entry.get("owner", "root:root")).partition(":")
        uid = pwd.getpwnam(user).pw_uid
        gid = grp.getgrnam(group).gr_gid if group else -1
        if (uid, gid) != (0, 0):
            os.chown(path, uid, gid)

    def _run(self, key: str, script: str) -> None:
        commands = self._config.get(key)
        if not commands:
            return
        path = self._home / script
        path.touch(mode=0o700)
        path.write_text(shell_script(commands))
        done = subprocess.run(
            ["/bin/sh", str(path)],
            stdin=subprocess.DEVNULL,
            stdout=self._console,
            stderr=self._console,
            env={**os.environ, "INSTANCE_ID": self._id, "HOME": "/root"},
            check=False,
        )
        if done.returncode:
            self._say(f"cloud-init[1]: WARNING: Failed to run {key}: exit {done.returncode}")


def decoded(content: str | bytes, encoding: str) -> bytes:
    """The bytes of a `write_files` entry.

    Raises:
        ValueError, OSError: it is not what its encoding says.
    """
    data = content if isinstance(content, bytes) else content.encode()
    words = encoding.lower().replace("base64", "b64").replace("gzip", "gz").split("+")
    if "b64" in words:
        data = base64.b64decode(data)
    if "gz" in words:
        with gzip.open(_stream(data)) as packed:
            data = packed.read(MAX_UNPACKED_BYTES)
    return data


def permissions(asked: object) -> int:
    """A mode: text is octal, a YAML number is taken as it is (cloud-init's decode_perms)."""
    if isinstance(asked, int):
        return asked
    return int(str(asked), 8)


def shell_script(commands: list[Any] | str) -> str:
    """cloud-init's `shellify`: lists are quoted word by word, strings are shell."""
    if isinstance(commands, str):
        commands = [commands]
    lines = ["#!/bin/sh"]
    for command in commands:
        if isinstance(command, list):
            lines.append(" ".join(shlex.quote(str(word)) for word in command))
        elif command is not None:
            lines.append(str(command))
    return "\n".join(lines) + "\n"


def _stream(data: bytes) -> Any:
    from io import BytesIO  # noqa: PLC0415

    return BytesIO(data)
