"""Installs the agent in a stock image; cloud-init runs it once, as root.

    python3 install.py [--wheels URL] [--prefix DIR] [--config FILE]... [--tries N]

DIR (/opt/blockferry) holds agent.sha256, which names the agent, and two lists of
pins with hashes: requirements.lock, the compiled wheels it stands on, and
pip.lock. This waits on the ports of all FILEs (/etc/blockferry/*/agent.json) until
a controller delivers the agent, has pip install the wheels, makes DIR/lib, all
of that side by side, and then DIR/bin/blockferry-agent, whose presence means
"installed": running again does nothing.

Only a file with that SHA-256 is taken. What is said on the port:
    we          blockferry-install <sha256, 64 hexadecimal digits>, newline
    controller  the agent, a zipapp, then end of file
    we          taken, newline, when it is the right one; else we close
Where a FILE has tunnel_address and tunnel_hello, the same is said on connections that
we open there: our first line is the hello, theirs is "go" when they want to begin.

Stock images of Debian and Ubuntu have python3 but no pip. Tried in this order:
  1. `python3 -m pip`, where the image has it;
  2. the pip wheel of pip.lock from the --wheels URL, checked and run as it is;
  3. a virtual environment's pip, where python3-venv is there;
  4. the distribution's package python3-pip, which needs its mirror.

URL is either a package index (PEP 503: `URL/grpcio/` answers) or a page that
links wheels; both are seen by asking it. Without one, pip's own default is used.

Only the standard library, nothing newer than Python 3.7: it must be able to say
that a Python is too old.
"""

from __future__ import annotations

import argparse
import base64
import contextlib
import errno
import hashlib
import json
import os
import platform
import random
import re
import select
import shutil
import socket
import ssl
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
import zipfile
from pathlib import Path
from typing import Any

OLDEST_PYTHON = (3, 10)
NEWEST_PYTHON = (3, 14)
MODULES = ("grpc", "google.protobuf", "zstandard", "blake3", "blockferry_agent")
PACKAGE_MANAGERS = {
    # The lock: a first boot's own upgrades may hold it for a while.
    "apt-get": "export DEBIAN_FRONTEND=noninteractive; apt='apt-get -o DPkg::Lock::Timeout=120'; "
    "$apt update && $apt install -y --no-install-recommends python3-pip",
    "dnf": "dnf install -y python3-pip",
    "zypper": "zypper --non-interactive install python3-pip",
}
PIP_SECONDS = 900
BEAT_SECONDS = 60
DELIVERY_SECONDS = 900
FETCH_SECONDS = 30
CONNECT_SECONDS = 5
TUNNEL_CONNECTIONS = 3
FETCH_MAX_BYTES = 16 << 20


class Failed(Exception):  # noqa: N818 - never leaves this file
    """One try did not work; its text is for the console."""


class Hopeless(Failed):
    """It will not work at any later time either."""


class NotThere(Failed):
    """The server answered, and has no such page."""


def main() -> int:
    """Install, trying again for a while; the exit status tells whether it worked."""
    parser = argparse.ArgumentParser(description="Install the Blockferry agent.")
    parser.add_argument("--wheels", default="", help="package index or page that links wheels")
    parser.add_argument("--prefix", type=Path, default=Path("/opt/blockferry"))
    parser.add_argument("--config", type=Path, action="append")
    parser.add_argument("--tries", type=int, default=6)
    arguments = parser.parse_args()
    configs = arguments.config or sorted(Path("/etc/blockferry").glob("*/agent.json"))
    if sys.version_info[:2] < OLDEST_PYTHON:
        return with_newer_python()
    pause = 2.0
    for left in reversed(range(arguments.tries)):
        try:
            install(arguments.prefix, configs, arguments.wheels)
        except (Failed, OSError, zipfile.BadZipFile) as error:
            if not left or is_hopeless(error):
                tell(f"blockferry: install failed: {error}")
                return 1
            tell(f"blockferry: installing did not work, {left} more to go: {error}")
            time.sleep(pause * random.uniform(0.5, 1.5))  # noqa: S311 - jitter
            pause = min(pause * 2, 60.0)
        else:
            return 0
    return 1


def is_hopeless(error: Exception) -> bool:
    """Whether trying again would only take time."""
    return isinstance(error, Hopeless) or getattr(error, "errno", None) == errno.ENOSPC


def with_newer_python() -> int:
    """Go on under the newest Python of this image that will do."""
    for minor in range(NEWEST_PYTHON[1], OLDEST_PYTHON[1] - 1, -1):
        path = shutil.which(f"python3.{minor}")
        if path:
            os.execv(path, [path, *sys.argv])  # noqa: S606 - replaces this process
    version = ".".join(map(str, sys.version_info[:2]))
    tell(
        f"blockferry: install failed: python3 is {version} in this image and the agent needs "
        "3.10 or newer; choose another with --image"
    )
    return 1


def install(prefix: Path, configs: list[Path], wheels: str) -> None:
    """Make `prefix`/lib and the launcher, in this order, each in one step."""
    launcher = prefix / "bin" / "blockferry-agent"
    if launcher.exists():
        return
    if not shutil.which("openssl"):
        raise Hopeless("this image has no openssl command; choose another with --image")
    bundle = prefix / "agent.pyz"
    wanted = (prefix / "agent.sha256").read_text().strip()
    if not bundle.exists() or hashlib.sha256(bundle.read_bytes()).hexdigest() != wanted:
        bundle.write_bytes(receive_agent(wanted, configs))
    fresh = prefix / "lib.new"
    shutil.rmtree(fresh, ignore_errors=True)
    install_wheels(prefix, wheels, fresh)
    with zipfile.ZipFile(bundle) as opened:
        opened.extractall(fresh)
    run([sys.executable, "-m", "compileall", "-q", str(fresh)], None, PIP_SECONDS)
    check(fresh)
    shutil.rmtree(prefix / "lib", ignore_errors=True)
    fresh.rename(prefix / "lib")
    launcher.parent.mkdir(parents=True, exist_ok=True)
    written = launcher.with_suffix(".new")
    # -I: nothing of the environment, the user or the working directory gets in.
    written.write_text(f'#!/bin/sh\nexec {sys.executable} -I {prefix}/lib "$@"\n')
    written.chmod(0o755)
    written.replace(launcher)


def receive_agent(wanted: str, configs: list[Path]) -> bytes:
    """Wait until somebody delivers the file with the SHA-256 `wanted`, to whichever agent."""
    settings = [json.loads(config.read_text()) for config in configs]
    with contextlib.ExitStack() as held:
        waiting = [listener for one in settings for listener in listeners(one, held)]
        tunnels = [held.enter_context(contextlib.closing(Tunnel(one))) for one in settings]
        # The controller takes this line, when nothing follows, for a network that keeps it out.
        tell("blockferry: waits for its controller on " + ", ".join(map(listening, waiting)))
        deadline = time.monotonic() + DELIVERY_SECONDS
        while time.monotonic() < deadline:
            dialled = {one: tunnel for tunnel in tunnels for one in tunnel.waiting()}
            for ready in select.select([*waiting, *dialled], [], [], 1.0)[0]:
                if ready in waiting:
                    connection, _ = ready.accept()
                elif dialled[ready].goes(ready):
                    connection = ready
                else:
                    continue
                with connection:
                    bundle = take(connection, wanted)
                if bundle:
                    tell("blockferry: has the agent, installs")
                    return bundle
    raise Failed(f"no controller delivered the agent in {DELIVERY_SECONDS} s")


class Tunnel:
    """Connections that we open to a controller which cannot reach us, if we are told where.

    We name ourselves in one line and wait; it says "go" when it wants to deliver.
    """

    def __init__(self, settings: dict[str, Any]) -> None:
        self.address = settings.get("tunnel_address", "")
        self.hello = settings.get("tunnel_hello", "").encode() + b"\n"
        self.connections: list[socket.socket] = []
        self.again_at = 0.0

    def waiting(self) -> list[socket.socket]:
        """Those that may be told to go; dials when there are too few."""
        if self.address and time.monotonic() >= self.again_at:
            try:
                while len(self.connections) < TUNNEL_CONNECTIONS:
                    self.dial()
            except OSError:
                self.again_at = time.monotonic() + random.uniform(1, 3)  # noqa: S311 - jitter
        return list(self.connections)

    def dial(self) -> None:
        """One more."""
        host, _, port = self.address.rpartition(":")
        connection = socket.create_connection((host.strip("[]"), int(port)), CONNECT_SECONDS)
        self.connections.append(connection)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        connection.sendall(self.hello)

    def goes(self, connection: socket.socket) -> bool:
        """Whether it was told to go: it is the caller's then. One that ended is closed."""
        self.connections.remove(connection)
        try:
            said = connection.recv(3)
        except OSError:
            said = b""
        if said == b"go\n":
            return True
        connection.close()
        self.again_at = time.monotonic() + random.uniform(0.2, 1)  # noqa: S311 - jitter
        return False

    def close(self) -> None:
        """Hang up."""
        for connection in self.connections:
            connection.close()


def listeners(settings: dict[str, Any], held: contextlib.ExitStack) -> list[socket.socket]:
    """Sockets on those of the agent's addresses that this instance has by now."""
    found, errors = [], []
    for address in settings["listen"]:
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        listener = held.enter_context(socket.socket(family, socket.SOCK_STREAM))
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((address, settings["port"]))
            listener.listen(4)
        except OSError as error:
            errors.append(f"{address}: {error.strerror}")
        else:
            found.append(listener)
    if not found:
        raise Failed("cannot listen on " + ", ".join(errors))
    return found


def listening(listener: socket.socket) -> str:
    """Address and port of a listener."""
    host, port = listener.getsockname()[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def take(connection: socket.socket, wanted: str) -> bytes:
    """The file, or nothing when it is another one or does not come."""
    bundle = bytearray()
    connection.settimeout(FETCH_SECONDS)
    try:
        connection.sendall(f"blockferry-install {wanted}\n".encode())
        for part in iter(lambda: connection.recv(65536), b""):
            bundle += part
            if len(bundle) > FETCH_MAX_BYTES:
                return b""
        if hashlib.sha256(bundle).hexdigest() != wanted:
            return b""
        connection.sendall(b"taken\n")
    except OSError:
        return b""
    return bytes(bundle)


def install_wheels(prefix: Path, wheels: str, target: Path) -> None:
    """Let pip put the locked wheels into `target`."""
    command = [
        *find_pip(prefix, wheels),
        *("install", "--no-deps", "--require-hashes", "--only-binary", ":all:"),
        *("--no-cache-dir", "--no-input", "--disable-pip-version-check", "--quiet"),
        *("--target", str(target), "--requirement", str(prefix / "requirements.lock")),
        *source_options(wheels),
    ]
    done = run(command, pip_environment(wheels), PIP_SECONDS)
    if done.returncode:
        raise explained(done, wheels)


UNREACHABLE = (
    "NewConnectionError|Failed to establish|ConnectTimeout|Read timed out|timed out|"
    "NameResolutionError|No route to host|Network is unreachable|Connection refused"
)
CAUSES = (
    (
        Hopeless,
        "No space left on device",
        "there is no space left on its disk; choose a larger flavor with --flavor",
    ),
    (
        Hopeless,
        "DO NOT MATCH THE HASHES",
        "{source} has another {wheel} than the one that is locked; collect the wheels anew",
    ),
    (
        Failed,
        UNREACHABLE,
        "{source} cannot be reached from this instance; offer the wheels elsewhere with --wheels",
    ),
    (
        Hopeless,
        "No matching distribution found|not a supported wheel",
        "{source} has no {wheel} for Python {python} on {machine}; collect it, or give --image",
    ),
)
"""What pip says, and what it means: the first that matches."""


def explained(done: subprocess.CompletedProcess[str], wheels: str) -> Failed:
    """The error for a pip that failed; its own last word stands behind."""
    said = done.stdout or ""
    wheel = re.search(r"(?:found for |^\s+)([a-z0-9_-]+==[^\s\\;]+)", said, re.MULTILINE)
    for kind, pattern, meaning in CAUSES:
        if re.search(pattern, said):
            meant = meaning.format(
                source=shown(wheels) if wheels else "the package index",
                wheel=wheel.group(1) if wheel else "wheel",
                python=".".join(map(str, sys.version_info[:2])),
                machine=platform.machine(),
            )
            return kind(f"{meant} (pip: {last_error(done)})")
    return Failed(f"pip: {last_error(done)}")


def find_pip(prefix: Path, wheels: str) -> list[str]:
    """The command that is pip; see the order at the top."""
    own = [sys.executable, "-m", "pip"]
    if works(own):
        return own
    missed = []
    if wheels:
        try:
            return [sys.executable, str(fetch_pip(prefix, wheels) / "pip")]
        except NotThere as error:
            missed.append(str(error))
    venv = prefix / "pip"
    run([sys.executable, "-m", "venv", str(venv)], None, PIP_SECONDS)
    if works([str(venv / "bin" / "python"), "-m", "pip"]):
        return [str(venv / "bin" / "python"), "-m", "pip"]
    for manager, command in PACKAGE_MANAGERS.items():
        if shutil.which(manager):
            done = run(["sh", "-c", command], None, PIP_SECONDS)
            if works(own):
                return own
            missed.append(f"{manager}: {last_error(done)}")
    raise Failed("this image has no pip, and none could be got: " + "; ".join(missed))


def fetch_pip(prefix: Path, wheels: str) -> Path:
    """The locked pip as a wheel, which is a zip file that Python can run."""
    version, digest = re.findall(
        r"pip==(\S+).*?sha256:([0-9a-f]{64})", (prefix / "pip.lock").read_text(), re.DOTALL
    )[0]
    base = wheels.rstrip("/") + "/"
    page = base + "pip/" if is_index(wheels) else base
    name = f"pip-{version}-py3-none-any.whl"
    links = re.findall(r'href="([^"#]+)', fetch(page).decode("utf-8", "replace"))
    found = [link for link in links if link.rsplit("/", 1)[-1] == name]
    if not found:
        raise NotThere(f"{shown(wheels)} has no {name}")
    wheel = fetch(urllib.parse.urljoin(page, found[0]))
    if hashlib.sha256(wheel).hexdigest() != digest:
        raise Failed(f"{name} from {shown(wheels)} is not the one that is locked")
    path = prefix / name
    path.write_bytes(wheel)
    return path


def source_options(wheels: str) -> list[str]:
    """Where pip is to look."""
    if not wheels:
        return []
    base = wheels.rstrip("/") + "/"
    options = ["--index-url", base] if is_index(wheels) else ["--no-index", "--find-links", base]
    address = urllib.parse.urlsplit(wheels)
    if address.scheme == "http":
        host = address.netloc.rsplit("@", 1)[-1]
        # The hashes vouch for what comes; http only shows it to onlookers.
        options += ["--trusted-host", host]
    return options


def is_index(wheels: str) -> bool:
    """Whether the URL is a package index; otherwise it is a page that links wheels."""
    try:
        fetch(wheels.rstrip("/") + "/grpcio/")
    except NotThere:
        return False
    return True


def fetch(url: str) -> bytes:
    """What is at `url`, at most FETCH_MAX_BYTES of it."""
    address = urllib.parse.urlsplit(url)
    plain = address._replace(netloc=address.netloc.rsplit("@", 1)[-1])
    request = urllib.request.Request(plain.geturl())  # noqa: S310 - the operator's own URL
    if address.username is not None:
        pair = f"{urllib.parse.unquote(address.username)}:"
        pair += urllib.parse.unquote(address.password or "")
        request.add_header("Authorization", "Basic " + base64.b64encode(pair.encode()).decode())
    try:
        with urllib.request.urlopen(request, timeout=FETCH_SECONDS) as response:  # noqa: S310
            return response.read(FETCH_MAX_BYTES)  # type: ignore[no-any-return]
    except urllib.error.HTTPError as error:
        kind = NotThere if error.code in {403, 404, 410} else Failed
        raise kind(f"{shown(url)} answered {error.code}") from error
    except IsADirectoryError as error:
        raise NotThere(f"{shown(url)} is a directory") from error
    except urllib.error.URLError as error:
        if isinstance(error.reason, (FileNotFoundError, IsADirectoryError)):
            raise NotThere(f"{shown(url)} is not there") from error
        raise Failed(f"{shown(url)}: {error.reason}") from error
    except (OSError, ssl.SSLError) as error:
        raise Failed(f"{shown(url)}: {error}") from error


def shown(url: str) -> str:
    """`url` without a password."""
    address = urllib.parse.urlsplit(url)
    return address._replace(netloc=address.netloc.rsplit("@", 1)[-1]).geturl()


def check(target: Path) -> None:
    """Everything must load: a wheel may be for a newer libc or another processor."""
    program = f"import sys; sys.path.insert(0, {str(target)!r}); import {', '.join(MODULES)}"
    done = run([sys.executable, "-I", "-c", program], None, FETCH_SECONDS * 4)
    if done.returncode:
        raise Failed(f"what was installed does not load: {last_error(done)}")


def works(command: list[str]) -> bool:
    """Whether this is a pip that can install by hash."""
    return run([*command, "--version"], None, FETCH_SECONDS * 2).returncode == 0


def pip_environment(wheels: str) -> dict[str, str]:
    """With a URL given, settings of the image must not add other sources."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith("PIP_")}
    if wheels:
        environment["PIP_CONFIG_FILE"] = os.devnull
    return {**environment, "PIP_ROOT_USER_ACTION": "ignore"}


def run(
    command: list[str], environment: dict[str, str] | None, seconds: float
) -> subprocess.CompletedProcess[str]:
    """The finished command; one that is missing or too slow has failed like any other.

    It is told now and then that it runs: the controller takes a silent console for a dead one.
    """
    deadline = time.monotonic() + seconds
    try:
        process = subprocess.Popen(
            command,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
    except OSError as error:
        return subprocess.CompletedProcess(command, 1, stdout=str(error))
    with process:
        while True:
            left = deadline - time.monotonic()
            try:
                said = process.communicate(timeout=max(0.0, min(BEAT_SECONDS, left)))[0]
            except subprocess.TimeoutExpired:
                if left <= BEAT_SECONDS:
                    process.kill()
                    process.communicate()
                    return subprocess.CompletedProcess(command, 1, f"took over {seconds:.0f} s")
                tell(f"blockferry: still installs, for {seconds - left + BEAT_SECONDS:.0f} s")
            else:
                return subprocess.CompletedProcess(command, process.returncode, said)


def last_error(done: subprocess.CompletedProcess[str]) -> str:
    """The line that most likely says why."""
    lines = [line.strip() for line in (done.stdout or "").splitlines() if line.strip()]
    errors = [line for line in lines if line.startswith(("ERROR:", "E:", "Error"))]
    return (errors or lines or [f"exit status {done.returncode}"])[-1][:400]


def tell(line: str) -> None:
    """Say it to cloud-init's log, and where the cloud's console log is read from."""
    print(line, file=sys.stderr, flush=True)  # noqa: T201 - the console is what it has
    try:
        with open("/dev/console", "w") as console:  # noqa: PTH123
            console.write(line + "\n")
    except OSError:
        pass


if __name__ == "__main__":
    sys.exit(main())
