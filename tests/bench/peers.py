"""The ways to move a device that the bench compares, each as one timed command."""

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

LIMIT_SECONDS = 600


@dataclass(frozen=True)
class MissingPeerError(Exception):
    """A peer that this machine does not have, and how to get it."""

    command: str
    package: str

    def __str__(self) -> str:
        return f"{self.command} is missing: apt-get install {self.package}"


@dataclass(frozen=True)
class Sshd:
    """A private sshd on loopback with a key of its own."""

    directory: Path
    port: int

    @property
    def client(self) -> str:
        """The ssh command line up to the remote command."""
        return (
            f"ssh -q -F none -p {self.port} -i {self.directory}/client "
            f"-o UserKnownHostsFile={self.directory}/known -o StrictHostKeyChecking=accept-new "
            f"-o IdentitiesOnly=yes -o BatchMode=yes {os.environ.get('USER', 'root')}@127.0.0.1"
        )


def find(command: str, package: str) -> str:
    """The command's path.

    Raises:
        MissingPeerError: it is not installed.
    """
    path = shutil.which(command, path=f"{os.environ['PATH']}:/usr/sbin:/sbin")
    if path is None:
        raise MissingPeerError(command, package)
    return path


@contextmanager
def sshd(directory: Path, port: int) -> Iterator[Sshd]:
    """Run an sshd for the time of the block."""
    binary = find("sshd", "openssh-server")
    find("ssh", "openssh-client")
    directory.mkdir(mode=0o700)
    for name in ("host", "client"):
        subprocess.run(
            ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(directory / name)], check=True
        )
    shutil.copy(directory / "client.pub", directory / "authorized")
    config = directory / "config"
    config.write_text(
        f"Port {port}\nListenAddress 127.0.0.1\nHostKey {directory}/host\nStrictModes no\n"
        f"AuthorizedKeysFile {directory}/authorized\nPidFile {directory}/pid\nUsePAM no\n"
        "PasswordAuthentication no\nPermitRootLogin prohibit-password\n",
        encoding="ascii",
    )
    Path("/run/sshd").mkdir(exist_ok=True)
    server = subprocess.Popen([binary, "-D", "-e", "-f", str(config)], stderr=subprocess.DEVNULL)
    try:
        yield _ready(Sshd(directory, port))
    finally:
        server.terminate()
        server.wait(10)


def _ready(daemon: Sshd) -> Sshd:
    for _ in range(50):
        if subprocess.run(f"{daemon.client} true", shell=True, check=False).returncode == 0:
            return daemon
        time.sleep(0.1)
    raise RuntimeError("the private sshd does not let us in")


def manual_gzip(daemon: Sshd, source: Path, destination: Path) -> str:
    """The manual procedure with the missing gunzip and a sensible block size."""
    return (
        f'{daemon.client} "dd bs=4M if={source} status=none | gzip -1" | gunzip '
        f"| dd bs=4M of={destination} conv=notrunc,fsync status=none"
    )


def manual_raw(daemon: Sshd, source: Path, destination: Path) -> str:
    """The same, not compressed."""
    return (
        f'{daemon.client} "dd bs=4M if={source} status=none" '
        f"| dd bs=4M of={destination} conv=notrunc,fsync status=none"
    )


def blockferry_copy(state: Path, source: Path, destination: Path, verify: str) -> str:
    """`blockferry copy` as a person types it."""
    command = Path(sys.executable).with_name("blockferry")
    return (
        f"{command} copy {source} {destination} --verify {verify} -o json --state sqlite:///{state}"
    )


def timed(command: str) -> tuple[float, str]:
    """Run a shell command; seconds and what it printed.

    Raises:
        RuntimeError: it failed.
    """
    start = time.perf_counter()
    done = subprocess.run(
        ["bash", "-o", "pipefail", "-c", command],
        capture_output=True, text=True, timeout=LIMIT_SECONDS, check=False,
    )  # fmt: skip
    seconds = time.perf_counter() - start
    if done.returncode != 0:
        raise RuntimeError(f"{command}\nended with {done.returncode}: {done.stderr.strip()}")
    return seconds, done.stdout
