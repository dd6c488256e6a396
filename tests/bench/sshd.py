"""A private sshd, for the ways that go through ssh."""

import os
import shutil
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.bench.commands import find


@dataclass(frozen=True)
class Sshd:
    """One that runs, with a key of its own."""

    directory: Path
    host: str
    port: int

    @property
    def options(self) -> str:
        """`ssh` and its options, without the host: what `rsync -e` takes."""
        return (
            f"ssh -q -F none -p {self.port} -i {self.directory}/client "
            f"-o UserKnownHostsFile={self.directory}/known -o StrictHostKeyChecking=accept-new "
            "-o IdentitiesOnly=yes -o BatchMode=yes"
        )

    @property
    def login(self) -> str:
        """`user@host`."""
        return f"{os.environ.get('USER', 'root')}@{self.host}"

    @property
    def client(self) -> str:
        """The ssh command line up to the remote command."""
        return f"{self.options} {self.login}"


@contextmanager
def sshd(
    directory: Path, port: int, host: str = "127.0.0.1", within: Sequence[str] = ()
) -> Iterator[Sshd]:
    """Run an sshd for the time of the block.

    Args:
        within: What goes before the command, for example `ip netns exec NAME`.
    """
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
        f"Port {port}\nListenAddress {host}\nHostKey {directory}/host\nStrictModes no\n"
        f"AuthorizedKeysFile {directory}/authorized\nPidFile {directory}/pid\nUsePAM no\n"
        "PasswordAuthentication no\nPermitRootLogin prohibit-password\n",
        encoding="ascii",
    )
    Path("/run/sshd").mkdir(exist_ok=True)
    server = subprocess.Popen(
        [*within, binary, "-D", "-e", "-f", str(config)], stderr=subprocess.DEVNULL
    )
    try:
        yield _ready(Sshd(directory, host, port))
    finally:
        server.terminate()
        server.wait(10)


def _ready(daemon: Sshd) -> Sshd:
    for _ in range(50):
        if subprocess.run(f"{daemon.client} true", shell=True, check=False).returncode == 0:
            return daemon
        time.sleep(0.1)
    raise RuntimeError("the private sshd does not let us in")
