"""User-data: what an instance is told, and that a cloud will take it."""

import base64
import gzip
import json
import random
import shutil
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from blockferry.errors import UsageError
from blockferry.identity import Role
from blockferry.limits import LANES_MAX
from blockferry_controller.delivery import user_data
from blockferry_controller.delivery.bundle import bundle_digest
from blockferry_controller.delivery.user_data import (
    USER_DATA_MAX_CHARS,
    AgentData,
    build_user_data,
    read_user_data,
    user_data_text,
)
from blockferry_controller.migration.authority import Authority

CONFIG: dict[str, Any] = {"version": 1, "migration_id": "m-1", "listen": ["10.0.0.5", "fd00::5"]}
FILES = {"bootstrap.crt": b"certificate\n", "bootstrap.key": b"the key\n", "authority.crt": b"a\n"}


def document(data: bytes) -> Any:
    return yaml.safe_load(user_data_text(data))


def build(*, prepared: bool = False, wheels: str = "", **changes: Any) -> bytes:
    told = AgentData(**{"config": CONFIG, "files": FILES, **changes})
    return build_user_data(agents=[told], prepared=prepared, wheels=wheels)


def test_the_agents_configuration_is_private() -> None:
    files = read_user_data(build(prepared=True))
    assert json.loads(files["/etc/blockferry/0/agent.json"][0]) == CONFIG
    for name, content in FILES.items():
        assert files[f"/etc/blockferry/0/{name}"] == (content, 0o600)
    assert files["/etc/blockferry/0/agent.json"][1] == 0o600
    assert files["/etc/systemd/system/blockferry-agent@.service"][1] == 0o644


def build_many(count: int = LANES_MAX) -> bytes:
    """Agents with keys of their own, which do not compress."""
    told = []
    for number in range(count):
        authority = Authority.create(f"pair-261127-abcdef-{number}")
        first = authority.bootstrap(Role.SINK, 1)
        files = {"bootstrap.crt": first.certificate_pem, "bootstrap.key": first.key_pem,
                 "authority.crt": authority.migration_root_pem}  # fmt: skip
        told.append(AgentData({**CONFIG, "port": 7443 + number}, files))
    return build_user_data(agents=told, prepared=False, wheels="")


def test_each_agent_has_files_and_a_process_of_its_own() -> None:
    data = build_many(3)
    files = read_user_data(data)
    keys = {files[f"/etc/blockferry/{number}/bootstrap.key"] for number in range(3)}
    ports = [
        json.loads(files[f"/etc/blockferry/{number}/agent.json"][0])["port"] for number in range(3)
    ]
    assert (len(keys), ports) == (3, [7443, 7444, 7445])
    started = [f"blockferry-agent@{number}.service" for number in range(3)]
    assert document(data)["runcmd"][-1] == ["systemctl", "enable", "--now", *started]


def test_a_cloud_takes_as_many_agents_as_there_may_be() -> None:
    assert len(base64.b64encode(build_many())) < USER_DATA_MAX_CHARS * 3 / 4


def test_only_the_unit_may_be_read_by_others() -> None:
    for path, (_, mode) in read_user_data(build()).items():
        assert not mode & (stat.S_IRWXG | stat.S_IRWXO) or path.endswith(".service"), path


def test_a_stock_image_installs_before_it_starts() -> None:
    told = document(build(wheels="http://10.0.0.1:8088/"))
    assert told["runcmd"] == [
        ["python3", "/opt/blockferry/install.py", "--wheels", "http://10.0.0.1:8088/"],
        ["systemctl", "daemon-reload"],
        ["systemctl", "enable", "--now", "blockferry-agent@0.service"],
    ]
    assert document(build())["runcmd"][0] == ["python3", "/opt/blockferry/install.py"]


def test_a_stock_image_is_told_which_agent_to_take() -> None:
    files = read_user_data(build())
    assert files["/opt/blockferry/agent.sha256"] == (f"{bundle_digest()}\n".encode(), 0o600)
    for name in ("requirements.lock", "pip.lock"):
        assert b"--hash=sha256:" in files[f"/opt/blockferry/{name}"][0]


def test_a_prepared_image_gets_neither_agent_nor_installer() -> None:
    data = build(prepared=True, wheels="http://10.0.0.1:8088/")
    assert not [path for path in read_user_data(data) if path.startswith("/opt")]
    assert document(data)["runcmd"][0] == ["systemctl", "daemon-reload"]
    assert len(base64.b64encode(data)) < 4_000


def test_nobody_can_log_in() -> None:
    told = document(build())
    assert told["ssh_pwauth"] is False
    assert told["disable_root"] is True
    assert not {"password", "chpasswd", "ssh_authorized_keys", "users"} & set(told)


def test_a_cloud_takes_it_and_there_is_room() -> None:
    size = len(base64.b64encode(build(wheels="https://wheels.example.org/simple/")))
    assert size < USER_DATA_MAX_CHARS / 4


def test_too_much_is_refused_with_the_numbers() -> None:
    noise = {"noise.bin": random.Random(1).randbytes(60_000)}
    with pytest.raises(UsageError) as caught:
        build(prepared=True, files=noise)
    error = caught.value
    assert error.reason == "USER_DATA_TOO_LARGE"
    assert int(error.metadata["size_chars"]) > int(error.metadata["limit_chars"]) == 65_535


@pytest.mark.parametrize("name", ["../passwd", "a/b", "", ".hidden", "agent.json", "x" * 65])
def test_files_stay_in_their_directory(name: str) -> None:
    with pytest.raises(UsageError) as caught:
        build(files={name: b""})
    assert caught.value.reason == "FILE_NAME"


def test_values_are_data_whatever_they_look_like() -> None:
    hostile = {**CONFIG, "listen": ["a: b\n- [x]\n%s {{ jinja }}", "ünï"]}
    data = build(config=hostile, wheels="https://x/?a=b&c='\"$(reboot)`")
    assert json.loads(read_user_data(data)["/etc/blockferry/0/agent.json"][0]) == hostile
    assert document(data)["runcmd"][0][-1] == "https://x/?a=b&c='\"$(reboot)`"


def test_the_same_input_gives_the_same_bytes() -> None:
    assert build() == build()


def test_other_encodings_are_read_too() -> None:
    entries = [
        {"path": "/a", "encoding": "gz+b64", "content": base64.b64encode(gzip.compress(b"x"))},
        {"path": "/b", "content": "plain", "permissions": "0700"},
    ]
    text = "#cloud-config\n" + yaml.safe_dump({"write_files": entries})
    assert read_user_data(gzip.compress(text.encode())) == {
        "/a": (b"x", 0o644),
        "/b": (b"plain", 0o700),
    }


def test_cloud_init_accepts_it(tmp_path: Path) -> None:
    if shutil.which("cloud-init") is None:
        pytest.skip("no cloud-init command here: apt-get install cloud-init (.ci/run does)")
    path = tmp_path / "user-data"
    for data in (build(wheels="http://10.0.0.1:8088/"), build(prepared=True), build_many()):
        path.write_text(user_data_text(data), encoding="utf-8")
        checked = subprocess.run(
            ["cloud-init", "schema", "--config-file", str(path)],
            capture_output=True,
            text=True,
            timeout=50,
            check=False,
        )
        assert checked.returncode == 0, checked.stdout + checked.stderr


def test_systemd_accepts_the_unit(tmp_path: Path) -> None:
    if shutil.which("systemd-analyze") is None:
        pytest.skip("no systemd-analyze command here")
    content, _ = read_user_data(build())[user_data.UNIT_PATH]
    unit = tmp_path / "blockferry-agent@0.service"
    launcher = b"/opt/blockferry/bin/blockferry-agent"
    assert launcher in content
    unit.write_bytes(content.replace(launcher, sys.executable.encode()))
    checked = subprocess.run(
        ["systemd-analyze", "verify", str(unit)],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    about_it = [line for line in checked.stderr.splitlines() if "blockferry" in line]
    assert not about_it
