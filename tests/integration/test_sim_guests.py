"""Servers of the embedded clouds really run their user-data, and leave nothing behind."""

from __future__ import annotations

import base64
import contextlib
import gzip
import json
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from openstack.connection import Connection

from tests.sim import EmbeddedCloud, Timings
from tests.sim.guest import why_guests_cannot_run

pytestmark = [
    pytest.mark.skipif(bool(why_guests_cannot_run()), reason=why_guests_cannot_run()),
    pytest.mark.filterwarnings("ignore::openstack.warnings.RemovedInSDK50Warning"),
    pytest.mark.filterwarnings("ignore::openstack.warnings.RemovedInSDK60Warning"),
]
QUICK = Timings(0.02, 0.02, 0.02, 0.02, 0.02, 0.02)
PORT = 7443
SERVE = """
import json, os, pathlib, socket, sys
listener = socket.create_server((sys.argv[1], int(sys.argv[2])))
while True:
    line, _ = listener.accept()
    with line:
        found = sorted(os.listdir("/dev/disk/by-id"))
        heads = [open(f"/dev/disk/by-id/{name}", "rb").read(5).decode() for name in found]
        note = pathlib.Path("/etc/note").read_text()
        told = os.environ.get("STATE_DIRECTORY"), os.environ.get("COLOUR"), os.environ.get("SIZE")
        line.sendall(json.dumps([note, found, heads, told, os.getpid()]).encode())
        if pathlib.Path("/tmp/crash").exists():
            pathlib.Path("/tmp/crash").unlink()
            sys.exit(3)
"""
UNIT = """\
[Unit]
Description=Serves
ConditionPathExists=/opt/serve.py
[Service]
EnvironmentFile=-/etc/nothing
EnvironmentFile=/etc/serve.env
Environment="COLOUR=deep red"
ExecStartPre=/bin/sh -c 'echo pre-start > /dev/console'
ExecStart=/usr/bin/python3 /opt/serve.py ${ADDRESS} $PORT_AND_MORE
StateDirectory=serve
StateDirectoryMode=0700
Restart=always
RestartSec=50ms
StandardError=journal+console
[Install]
WantedBy=multi-user.target
"""


def packed(text: str) -> str:
    return base64.b64encode(gzip.compress(text.encode())).decode()


def user_data(address: str) -> bytes:
    """What a server gets that listens at `address`."""
    files = [
        {"path": "/etc/note", "content": "plain\n", "permissions": "0600"},
        {"path": "/etc/note", "content": "more\n", "append": True, "permissions": "0600"},
        {"path": "/opt/serve.py", "content": packed(SERVE), "encoding": "gz+b64"},
        {"path": "/etc/systemd/system/serve.service", "content": UNIT},
        {"path": "/etc/serve.env", "content": f"ADDRESS={address}\nPORT_AND_MORE={PORT}\n"},
        {"path": "/etc/late", "content": "late", "defer": True},
    ]
    commands = [
        [*("systemctl", "daemon-reload")],
        [*("systemctl", "enable", "--now", "serve.service")],
        "stat -c 'mode %a' /etc/note /var/lib/serve; cat /etc/late; echo; id -u",
        ["echo", "quoted; $HOME"],
        "python3 -m pip --version; python3 -c 'import yaml'; echo $INSTANCE_ID",
    ]
    config = {"users": [], "write_files": files, "runcmd": commands, "bootcmd": ["echo early"]}
    return gzip.compress(b"#cloud-config\n" + yaml.safe_dump(config).encode())


class Stage:
    """A cloud, a client and its servers."""

    def __init__(self, cloud: EmbeddedCloud, client: Connection) -> None:
        self.cloud = cloud
        self.client = client

    def boot(self, user_data_of: Callable[[str], bytes]) -> tuple[Any, str]:
        """A server that is ACTIVE, and its address."""
        network = next(n for n in self.client.network.networks() if not n.is_router_external)
        port = self.client.network.create_port(network_id=network.id)
        address = port.fixed_ips[0]["ip_address"]
        made = self.client.compute.create_server(
            name="guest",
            image_id=next(iter(self.cloud.glance.images)),
            flavor_id=next(iter(self.cloud.nova.flavors)),
            networks=[{"port": port.id}],
            user_data=base64.b64encode(user_data_of(address)).decode(),
        )
        return self.client.compute.wait_for_server(made, interval=0.02, wait=20), address

    def console(self, server: Any, text: str) -> str:
        """The console log as soon as it holds `text`."""

        def log() -> str:
            output = self.client.compute.get_server_console_output(server)["output"]
            return output if text in output else ""

        return str(eventually(log))

    def delete(self, server: Any) -> None:
        self.client.compute.delete_server(server)
        self.client.compute.wait_for_delete(server, interval=0.02, wait=10)


def eventually(ask: Callable[[], Any]) -> Any:
    """What `ask` answers, as soon as it is true."""
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError):
            answer = ask()
            if answer:
                return answer
        time.sleep(0.02)
    raise AssertionError(f"nothing within 20 s from {ask}")


def told(address: str) -> list[Any]:
    """What the service in the guest says."""
    with socket.create_connection((address, PORT), timeout=5) as line:
        answer: list[Any] = json.loads(b"".join(iter(lambda: line.recv(65536), b"")))
        return answer


def processes(mark: str) -> list[int]:
    """Processes of this machine whose command line or root has `mark`."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                command = (entry / "cmdline").read_bytes().decode("utf-8", "replace")
                if mark in command or mark in str((entry / "root").readlink()):
                    found.append(int(entry.name))
    return found


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    directory = tmp_path_factory.mktemp("guests")
    with EmbeddedCloud("guests", directory, timings=QUICK) as cloud:
        with cloud.connect() as client:
            yield Stage(cloud, client)
        assert cloud.problems == []
    assert processes(str(directory)) == []


def test_a_server_acts_on_its_user_data(stage: Stage) -> None:
    server, address = stage.boot(user_data)
    note, found, _, environment, _ = eventually(lambda: told(address))
    assert note == "plain\nmore\n"
    assert found == []
    assert environment == ["/var/lib/serve", "deep red", None]
    log = stage.console(server, "finished")
    assert log.index("early") < log.index("pre-start") < log.index("Started serve.service")
    for line in ("mode 600", "mode 700", "late", "quoted; $HOME", server.id, "No module named pip"):
        assert line in log
    assert (
        len(stage.client.compute.get_server_console_output(server, length=2)["output"].splitlines())
        == 2
    )
    stage.delete(server)
    assert processes(server.id) == []
    assert not (stage.cloud.directory / "instances" / server.id).exists()


def test_volumes_are_plugged_and_unplugged_while_it_runs(stage: Stage) -> None:
    server, address = stage.boot(user_data)
    volume_id = stage.cloud.make_volume("v", content=b"hello world")
    eventually(lambda: told(address))
    stage.client.compute.create_volume_attachment(server, volume=volume_id)
    found = eventually(lambda: told(address)[1:3] if told(address)[1] else None)
    assert found == [[f"virtio-{volume_id[:20]}"], ["hello"]]
    stage.client.compute.delete_volume_attachment(server, volume_id)
    eventually(lambda: not told(address)[1])
    stage.delete(server)


def test_a_service_that_dies_is_started_again(stage: Stage) -> None:
    server, address = stage.boot(user_data)
    first = eventually(lambda: told(address))[-1]
    (stage.cloud.directory / "instances" / server.id / "root/tmp/crash").touch()
    told(address)
    assert eventually(lambda: told(address))[-1] != first
    stage.console(server, "Main process exited, code=exited, status=3")
    stage.delete(server)


def test_a_guest_is_stopped_and_started_with_its_disk(stage: Stage) -> None:
    server, address = stage.boot(user_data)
    stage.console(server, "finished")
    stage.client.compute.stop_server(server)
    stage.client.compute.wait_for_server(server, status="SHUTOFF", interval=0.02, wait=15)
    assert processes(server.id) == []
    stage.client.compute.start_server(server)
    stage.client.compute.wait_for_server(server, interval=0.02, wait=15)
    assert eventually(lambda: told(address))[0] == "plain\nmore\n"
    log = stage.console(server, "Powering off")
    assert log.count("quoted; $HOME") == 1, "runcmd is for the first boot only"
    stage.delete(server)


def test_a_guest_may_power_itself_off(stage: Stage) -> None:
    server, _ = stage.boot(lambda _: b"#!/bin/sh\nsystemctl poweroff\n")
    stage.client.compute.wait_for_server(server, status="SHUTOFF", interval=0.02, wait=15)
    stage.delete(server)


def test_instances_of_a_template_are_services_of_their_own(stage: Stage) -> None:
    unit = "[Service]\nExecStart=/bin/sh -c 'echo at %i > /dev/console; sleep 60'\n"
    unit += "StateDirectory=many/%i\n[Install]\nWantedBy=multi-user.target\n"
    config = {
        "write_files": [{"path": "/etc/systemd/system/many@.service", "content": unit}],
        "runcmd": [
            ["systemctl", "enable", "--now", "many@0.service", "many@1.service"],
            ["ls", "/var/lib/many"],
            ["systemctl", "is-active", "many@0.service", "many@1.service", "many@2.service"],
        ],
    }
    server, _ = stage.boot(lambda _: b"#cloud-config\n" + yaml.safe_dump(config).encode())
    log = stage.console(server, "finished")
    assert {"at 0", "at 1", "inactive"} <= {line.strip() for line in log.splitlines()}
    stage.client.compute.stop_server(server)
    stage.client.compute.wait_for_server(server, status="SHUTOFF", interval=0.02, wait=15)
    stage.client.compute.start_server(server)
    stage.client.compute.wait_for_server(server, interval=0.02, wait=15)
    eventually(lambda: stage.console(server, "at 1").count("at 1") >= 2)
    stage.delete(server)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        pytest.param(b"#cloud-config\na: [", "Failed loading yaml blob", id="no yaml"),
        pytest.param(b"hello", "Unhandled non-multipart", id="no cloud-config"),
        pytest.param(b"#cloud-config\nruncmd: [[false]]\n", "Failed to run runcmd", id="fails"),
        pytest.param(b"", "finished", id="nothing"),
    ],
)
def test_user_data_that_does_not_work_is_told_on_the_console(
    stage: Stage, text: bytes, says: str
) -> None:
    server, _ = stage.boot(lambda _: text)
    stage.console(server, says)
    stage.console(server, "finished")
    stage.delete(server)


def test_no_guest_survives_a_killed_simulator(tmp_path: Path) -> None:
    simulator = subprocess.Popen(
        [sys.executable, "-m", "tests.sim", "--dir", str(tmp_path), "--name", "doomed"],
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert simulator.stdout
        url = simulator.stdout.readline().split()[2]
        auth = {"auth_url": url, "username": "demo", "password": "not-a-secret"}
        names = {"project_name": "demo", "user_domain_name": "Default"}
        with Connection(
            auth={**auth, **names, "project_domain_name": "Default"}, region_name="RegionOne"
        ) as client:
            image, flavor = next(client.image.images()), next(client.compute.flavors())
            server = client.compute.create_server(
                name="g",
                image_id=image.id,
                flavor_id=flavor.id,
                networks="auto",
                user_data=base64.b64encode(b"#!/bin/sh\nsetsid sleep 1000 &\n").decode(),
            )
            client.compute.wait_for_server(server, interval=0.05, wait=20)
            eventually(
                lambda: "finished" in client.compute.get_server_console_output(server)["output"]
            )
        assert processes(str(tmp_path / "doomed"))
        simulator.send_signal(signal.SIGKILL)
        simulator.wait()
        eventually(lambda: not processes(str(tmp_path / "doomed")))
    finally:
        simulator.kill()
        simulator.wait()
        if simulator.stdout:
            simulator.stdout.close()
