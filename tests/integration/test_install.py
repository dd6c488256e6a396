"""The installer does its work: real pip, real wheels, a real delivery, all on loopback."""

import hashlib
import json
import os
import platform
import re
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from blockferry.errors import PreconditionError, UnreachableError
from blockferry.identity import Identity, Role
from blockferry_controller.agents.dial import dial
from blockferry_controller.delivery import first_contact
from blockferry_controller.delivery.bundle import build_bundle
from blockferry_controller.delivery.first_contact import deliver
from blockferry_controller.delivery.user_data import (
    AGENT_DIRECTORY,
    CONFIG_DIRECTORY,
    AgentData,
    build_user_data,
    read_user_data,
)
from blockferry_controller.migration.authority import Authority
from tests.wheelhouse import collect, serve

pytestmark = pytest.mark.timeout(240)


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same wheels twice: in `all`, a page of links, and in `simple`, an index."""
    root = tmp_path_factory.mktemp("wheels")
    collect(root / "all")
    for wheel in (root / "all").iterdir():
        project = wheel.name.split("-")[0].replace("_", "-")
        (root / "simple" / project).mkdir(parents=True)
        (root / "simple" / project / wheel.name).symlink_to(wheel)
    return root


@pytest.fixture
def url(wheels: Path) -> Iterator[str]:
    with serve(wheels) as found:
        yield found


@pytest.fixture
def prefix(tmp_path: Path) -> Path:
    """What user-data puts on a stock image; the agent is delivered already."""
    root = tmp_path / "opt"
    settings = {"listen": ["127.0.0.1", "192.0.2.1"], "port": free_port()}
    told = build_user_data(agents=[AgentData(settings, {})], prepared=False, wheels="")
    for path, (content, mode) in read_user_data(told).items():
        for directory in (AGENT_DIRECTORY, CONFIG_DIRECTORY):
            if path.startswith(directory):
                file = root / Path(path).name
                file.parent.mkdir(exist_ok=True)
                file.write_bytes(content)
                file.chmod(mode)
    (root / "agent.pyz").write_bytes(build_bundle())
    return root


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as found:
        port: int = found.getsockname()[1]
        return port


@pytest.fixture(scope="module")
def bare_python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Python that has nothing, not even pip, like a stock image's."""
    root = tmp_path_factory.mktemp("python")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", root], check=True, timeout=60)
    return root / "bin" / "python"


def command(python: Path, prefix: Path, wheels: str, tries: int) -> list[str]:
    return [
        *(str(python), str(prefix / "install.py"), "--prefix", str(prefix)),
        *("--config", str(prefix / "agent.json"), "--wheels", wheels, "--tries", str(tries)),
    ]


def install(
    python: Path, prefix: Path, wheels: str, *, tries: int = 1
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(python, prefix, wheels, tries),
        env={"PATH": str(few_commands(prefix))},
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )


def few_commands(prefix: Path) -> Path:
    """A directory for PATH without a package manager: a test must not install packages."""
    commands = prefix.parent / "commands"
    commands.mkdir(exist_ok=True)
    for name in ("sh", "openssl"):
        found = shutil.which(name)
        assert found is not None
        if not (commands / name).exists():
            (commands / name).symlink_to(found)
    return commands


def version_of(prefix: Path) -> str:
    return subprocess.run(
        [prefix / "bin" / "blockferry-agent", "--version"],
        env={"PATH": str(few_commands(prefix))},
        check=True,
        capture_output=True,
        text=True,
        timeout=30,
    ).stdout


@pytest.mark.parametrize(
    "place", [pytest.param("all/", id="page-of-links"), pytest.param("simple", id="index")]
)
def test_an_image_without_pip_gets_the_agent(
    bare_python: Path, prefix: Path, url: str, place: str
) -> None:
    done = install(bare_python, prefix, f"{url}/{place}")
    assert done.returncode == 0, done.stderr
    assert "blockferry" not in done.stderr
    assert version_of(prefix)
    again = install(bare_python, prefix, "http://127.0.0.1:1/")
    assert (again.returncode, again.stderr) == (0, "")


def test_an_image_with_pip_uses_it(prefix: Path, url: str) -> None:
    done = install(Path(sys.executable), prefix, f"{url}/all")
    assert done.returncode == 0, done.stderr
    assert not list(prefix.glob("pip-*.whl"))
    assert version_of(prefix)


def test_another_wheel_than_the_locked_one_is_refused(
    bare_python: Path, prefix: Path, url: str
) -> None:
    lock = prefix / "requirements.lock"
    text = lock.read_text(encoding="utf-8")
    begin = text.index("protobuf==")
    end = text.index("typing-extensions==")
    other = hashlib.sha256(b"another wheel").hexdigest()
    lock.write_text(
        f"{text[:begin]}{text[begin:end].split()[0]} --hash=sha256:{other}\n{text[end:]}",
        encoding="utf-8",
    )
    done = install(bare_python, prefix, f"{url}/all/")
    assert done.returncode == 1
    assert "blockferry: install failed: " in done.stderr
    assert "/all/ has another protobuf==" in done.stderr
    assert "than the one that is locked" in done.stderr
    assert not (prefix / "bin").exists()


def test_another_pip_than_the_locked_one_never_runs(
    bare_python: Path, prefix: Path, url: str
) -> None:
    lock = prefix / "pip.lock"
    version = lock.read_text(encoding="utf-8").split("pip==")[1].split()[0]
    lock.write_text(f"pip=={version} --hash=sha256:{'0' * 64}\n", encoding="utf-8")
    done = install(bare_python, prefix, f"{url}/all/")
    assert done.returncode == 1
    assert "is not the one that is locked" in done.stderr
    assert not list(prefix.glob("pip-*.whl"))


def test_a_server_that_is_not_there_is_named_without_its_password(
    bare_python: Path, prefix: Path
) -> None:
    done = install(bare_python, prefix, "http://user:secret@127.0.0.1:1/wheels/", tries=2)
    assert done.returncode == 1
    assert "secret" not in done.stderr
    lines = done.stderr.strip().splitlines()
    assert lines[0].startswith("blockferry: installing did not work, 1 more to go: ")
    assert lines[-1].startswith("blockferry: install failed: ")
    assert "127.0.0.1:1" in lines[-1]
    # The controller ends its wait when it sees this, so it must come only at the end.
    assert done.stderr.count("blockferry: install failed") == 1


def said_at_once(done: subprocess.CompletedProcess[str]) -> str:
    """The one line of an installer that did not try again, though it might have."""
    assert done.returncode == 1
    (line,) = [one for one in done.stderr.splitlines() if one.startswith("blockferry: ")]
    assert line.startswith("blockferry: install failed: ")
    return line


def test_no_wheel_for_this_python(
    bare_python: Path, prefix: Path, wheels: Path, tmp_path: Path
) -> None:
    fewer = tmp_path / "fewer"
    fewer.mkdir()
    for wheel in (wheels / "all").iterdir():
        name = wheel.name.replace(f"cp3{sys.version_info.minor}", "cp399")
        (fewer / name).symlink_to(wheel)
    with serve(fewer) as url:
        line = said_at_once(install(bare_python, prefix, url, tries=3))
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    assert re.search(rf"has no \w+==\S+ for Python {version} on {platform.machine()}", line)


def test_no_route_to_the_wheels(
    bare_python: Path, prefix: Path, wheels: Path, tmp_path: Path
) -> None:
    """The page is there, what it links is not."""
    links = tmp_path / "links"
    links.mkdir()
    pip = next((wheels / "all").glob("pip-*"))
    (links / pip.name).symlink_to(pip)
    pages = [
        f'<a href="http://127.0.0.1:1/{wheel.name}">{wheel.name}</a>'
        for wheel in (wheels / "all").iterdir()
        if wheel != pip
    ]
    (links / "index.html").write_text("".join([f'<a href="{pip.name}">p</a>', *pages]))
    with serve(links) as url:
        done = install(bare_python, prefix, url, tries=2)
    first, last = done.stderr.strip().splitlines()
    assert first.startswith("blockferry: installing did not work, 1 more to go: ")
    assert last.startswith("blockferry: install failed: ")
    assert "cannot be reached from this instance" in last


def test_no_pip_anywhere(bare_python: Path, prefix: Path, tmp_path: Path) -> None:
    """As a stock Debian without its python3-venv, where apt-get cannot reach its mirror."""
    (tmp_path / "none").mkdir()
    (tmp_path / "venv.py").write_text("raise SystemExit('ensurepip is not available')")
    with serve(tmp_path / "none") as url:
        done = subprocess.run(
            command(bare_python, prefix, url, 1),
            env={"PATH": str(few_commands(prefix)), "PYTHONPATH": str(tmp_path)},
            capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
    assert done.returncode == 1
    assert re.search(r"this image has no pip, and none could be got: .* has no pip-", done.stderr)


def test_no_openssl_is_told_before_anything_is_fetched(bare_python: Path, prefix: Path) -> None:
    (few_commands(prefix) / "openssl").unlink()
    done = subprocess.run(
        command(bare_python, prefix, "http://127.0.0.1:1/", 3),
        env={"PATH": str(prefix.parent / "commands")},
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert "no openssl command" in said_at_once(done)


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small disk needs root")
def test_a_full_disk(bare_python: Path, prefix: Path, url: str) -> None:
    size = sum(file.stat().st_size for file in prefix.iterdir())
    kept = {file.name: file.read_bytes() for file in prefix.iterdir()}
    subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size + (12 << 20)}", "none", prefix], check=True
    )
    try:
        for name, content in kept.items():
            (prefix / name).write_bytes(content)
        done = install(bare_python, prefix, f"{url}/all/", tries=3)
    finally:
        subprocess.run(["umount", prefix], check=True)
    assert "no space left" in said_at_once(done).lower()


def test_a_command_that_takes_long_says_that_it_runs(prefix: Path) -> None:
    """The controller takes a console that stands still for a dead one."""
    program = (
        f"import sys; sys.path.insert(0, {str(prefix)!r}); import install; "
        "install.BEAT_SECONDS = 0.3; "
        "print(install.run(['sleep', '1'], None, 9).returncode, "
        "install.run(['sleep', '9'], None, 0.5).stdout, "
        "install.run(['nothing-of-this-name'], None, 9).returncode)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=30, check=True
    )
    assert done.stdout == "0 took over 0 s 1\n"
    assert done.stderr.count("blockferry: still installs, for") in {3, 4}


def test_the_bundle_needs_nothing_but_the_locked_wheels(
    bare_python: Path, prefix: Path, wheels: Path, tmp_path: Path
) -> None:
    lib = tmp_path / "lib"
    for wheel in (wheels / "all").iterdir():
        if not wheel.name.startswith("pip-"):
            subprocess.run(
                [sys.executable, "-m", "zipfile", "-e", wheel, lib], check=True, timeout=60
            )
    shown = subprocess.run(
        [bare_python, prefix / "agent.pyz", "--help"],
        env={"PYTHONPATH": str(lib)},
        check=True,
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert "serve" in shown.stdout


@dataclass
class Waiting:
    """An installer that has not got the agent yet."""

    prefix: Path
    process: subprocess.Popen[str]

    @property
    def address(self) -> str:
        settings = json.loads((self.prefix / "agent.json").read_text())
        return f"127.0.0.1:{settings['port']}"

    def say(self, content: bytes) -> bytes:
        """Be anybody: send something, return all that is answered."""
        host, port = self.address.split(":")
        with socket.create_connection((host, int(port)), timeout=5) as peer:
            peer.sendall(content)
            peer.shutdown(socket.SHUT_WR)
            return b"".join(iter(lambda: peer.recv(4096), b""))


@pytest.fixture
def waiting(bare_python: Path, prefix: Path, url: str) -> Iterator[Waiting]:
    (prefix / "agent.pyz").unlink()
    process = subprocess.Popen(
        command(bare_python, prefix, f"{url}/all/", 1),
        env={"PATH": str(few_commands(prefix))},
        stderr=subprocess.PIPE,
        text=True,
    )
    found = Waiting(prefix, process)
    until = time.monotonic() + 20
    while not listens(found.address):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < until
        time.sleep(0.02)
    yield found
    process.kill()
    process.communicate(timeout=20)


def listens(address: str) -> bool:
    host, port = address.split(":")
    try:
        socket.create_connection((host, int(port)), timeout=1).close()
    except OSError:
        return False
    return True


def test_the_controller_delivers_the_agent_at_first_contact(waiting: Waiting) -> None:
    authority = Authority.create("m-1")
    agent = dial(
        waiting.address,
        Identity("m-1", Role.SINK, 1),
        authority.controller(1),
        authority.bootstrap_root_pem,
        bootstrap=True,
        patient=False,
    )
    with pytest.raises(UnreachableError) as caught:
        agent.describe()
    agent.close()
    assert caught.value.reason == "AGENT_INSTALLING"
    _, said = waiting.process.communicate(timeout=120)
    assert waiting.process.returncode == 0, said
    assert said.splitlines() == [
        f"blockferry: waits for its controller on {waiting.address}",
        "blockferry: has the agent, installs",
    ]
    assert version_of(waiting.prefix)


def test_it_waits_on_the_port_of_each_agent(bare_python: Path, prefix: Path, url: str) -> None:
    (prefix / "agent.pyz").unlink()
    second = prefix / "second.json"
    settings = json.loads((prefix / "agent.json").read_text())
    second.write_text(json.dumps({**settings, "port": free_port()}))
    with subprocess.Popen(
        [*command(bare_python, prefix, f"{url}/all/", 1), "--config", str(second)],
        env={"PATH": str(few_commands(prefix))},
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            asked = f"127.0.0.1:{json.loads(second.read_text())['port']}"
            until = time.monotonic() + 20
            while not listens(asked):
                assert process.poll() is None, process.communicate()
                assert time.monotonic() < until
                time.sleep(0.02)
            assert deliver(asked)
        finally:
            process.kill()


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(b"\x16\x03\x01\x00\xf0" + bytes(240), id="tls"),
        pytest.param(build_bundle()[:-1], id="cut-short"),
        pytest.param(build_bundle() + b"x", id="with-more"),
    ],
)
def test_only_the_named_agent_is_taken(waiting: Waiting, content: bytes) -> None:
    assert waiting.say(content).count(b"\n") == 1
    assert waiting.process.poll() is None
    assert deliver(waiting.address)


def test_another_version_is_not_delivered(
    waiting: Waiting, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(first_contact, "bundle_digest", lambda: "0" * 64)
    with pytest.raises(PreconditionError) as caught:
        deliver(waiting.address)
    assert caught.value.reason == "AGENT_VERSION"
    assert waiting.process.poll() is None


def test_who_does_not_ask_gets_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(first_contact, "_CONNECT_SECONDS", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"127.0.0.1:{silent.getsockname()[1]}"
        assert not deliver(address)
        connection, _ = silent.accept()
        with connection:
            assert connection.recv(1) == b""
    assert not deliver(address)
