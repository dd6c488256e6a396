"""`blockferry wheels serve`: real sockets, and whoever asks for more than wheels."""

import http.client
import json
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from blockferry_controller.delivery import wheel_server

CONTENT = bytes(range(256)) * 5000


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    house = tmp_path / "house"
    (house / "below").mkdir(parents=True)
    (tmp_path / "secret.whl").write_text("secret")
    (house / "a-1.0+x-py3-none-any.whl").write_bytes(CONTENT)
    (house / "clouds.yaml").write_text("password: secret")
    (house / "below" / "b-1-py3-none-any.whl").write_text("secret")
    (house / "link-1-py3-none-any.whl").symlink_to(tmp_path / "secret.whl")
    (house / ".hidden.whl").write_text("secret")
    return house


def start(directory: Path, *options: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [
            *(sys.executable, "-m", "blockferry_controller", "wheels", "serve", str(directory)),
            *options,
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.fixture
def served(directory: Path) -> Iterator[tuple[subprocess.Popen[str], str]]:
    process = start(directory, "--address", "127.0.0.1", "--port", "0")
    assert process.stdout is not None
    yield process, process.stdout.readline().strip()
    if process.poll() is None:
        process.kill()
    process.communicate(timeout=20)


def ask(url: str, path: str, method: str = "GET") -> tuple[int, bytes]:
    """The path goes out as it is: no client tidies it up."""
    connection = http.client.HTTPConnection(url.split("/")[2], timeout=10)
    try:
        connection.request(method, path)
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


def test_wheels_are_listed_and_served(served: tuple[subprocess.Popen[str], str]) -> None:
    _, url = served
    status, page = ask(url, "/")
    assert status == 200
    assert page.count(b"<a href=") == 1
    assert ask(url, "/a-1.0+x-py3-none-any.whl") == (200, CONTENT)
    assert ask(url, "/a-1.0%2Bx-py3-none-any.whl") == (200, CONTENT)
    assert ask(url, "/a-1.0+x-py3-none-any.whl", "HEAD") == (200, b"")


@pytest.mark.parametrize(
    "path",
    [
        "/clouds.yaml",
        "/../secret.whl",
        "/%2e%2e/secret.whl",
        "/..%2fsecret.whl",
        "//etc/passwd",
        "/below/b-1-py3-none-any.whl",
        "/below%2fb-1-py3-none-any.whl",
        "/link-1-py3-none-any.whl",
        "/.hidden.whl",
        "/a-1.0+x-py3-none-any.whl%00",
        "/grpcio/",
        "/nothing.whl",
    ],
)
def test_nothing_else_is(served: tuple[subprocess.Popen[str], str], path: str) -> None:
    assert ask(served[1], path) == (404, b"")


@pytest.mark.parametrize("method", ["PUT", "POST", "DELETE"])
def test_nothing_is_written(
    served: tuple[subprocess.Popen[str], str], directory: Path, method: str
) -> None:
    before = sorted(path.name for path in directory.iterdir())
    assert ask(served[1], "/a-1.0+x-py3-none-any.whl", method)[0] == 501
    assert sorted(path.name for path in directory.iterdir()) == before


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_it_ends_when_told(
    served: tuple[subprocess.Popen[str], str], number: signal.Signals
) -> None:
    process, url = served
    assert ask(url, "/")[0] == 200
    process.send_signal(number)
    _, stderr = process.communicate(timeout=20)
    assert (process.returncode, stderr) == (0, "")


def test_connections_are_bounded(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wheel_server, "CONNECTIONS_MAX", 3)
    monkeypatch.setattr(wheel_server._Request, "timeout", 0.5)
    with wheel_server.WheelServer(directory, "127.0.0.1", 0) as server:
        held = [socket.create_connection(server.server_address[:2], 5) for _ in range(5)]  # type: ignore[arg-type]
        for _ in held:
            server.handle_request()
        ended = [peer for peer in held if _is_closed(peer)]
        assert len(ended) >= 2
        deadline = time.monotonic() + 20
        while not all(map(_is_closed, held)):
            assert time.monotonic() < deadline, "a silent client is kept for ever"
        for peer in held:
            peer.close()


def _is_closed(peer: socket.socket) -> bool:
    peer.settimeout(0.1)
    try:
        return peer.recv(1) == b""
    except TimeoutError:
        return False


@pytest.mark.parametrize(
    ("options", "code", "reason"),
    [
        pytest.param(["--address", "192.0.2.7"], 2, "ADDRESS_NOT_OURS", id="address"),
        pytest.param(["--port", "taken"], 13, "PORT_IN_USE", id="port"),
        pytest.param(["empty"], 12, "NO_WHEELS", id="no wheel"),
        pytest.param(["missing"], 11, "DIRECTORY_NOT_FOUND", id="no directory"),
    ],
)
def test_what_cannot_be_served(
    directory: Path, tmp_path: Path, options: list[str], code: int, reason: str
) -> None:
    (tmp_path / "empty").mkdir()
    where = tmp_path / options[0] if len(options) == 1 else directory
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        given = [port if one == "taken" else one for one in options if len(options) > 1]
        address = [] if "--address" in given else ["--address", "127.0.0.1"]
        process = start(where, *address, *given, "-o", "json")
        stdout, _ = process.communicate(timeout=30)
    assert process.returncode == code
    assert json.loads(stdout)["error"]["reason"] == reason


def test_the_address_of_this_machine_is_one_of_its_own() -> None:
    address = wheel_server.own_address()
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.bind((address, 0))
