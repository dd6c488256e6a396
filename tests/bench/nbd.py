"""An nbdkit that exports the destination over TLS, with certificates of its own."""

import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.bench.commands import find

START_SECONDS = 10.0


@dataclass(frozen=True)
class Export:
    """A running export of one file.

    Attributes:
        certificates: Directory in the form that GnuTLS-based tools take.
    """

    host: str
    port: int
    certificates: Path

    @property
    def uri(self) -> str:
        """As libnbd takes it."""
        return f"nbds://{self.host}:{self.port}/?tls-certificates={self.certificates}"


def certificates(directory: Path, host: str) -> Path:
    """An authority, a server's and a client's certificate."""
    find("certtool", "gnutls-bin")
    directory.mkdir(mode=0o700)
    _key(directory, "ca")
    (directory / "ca.info").write_text("cn = bench\nca\ncert_signing_key\n")
    _certtool(directory, "--generate-self-signed", "--load-privkey", "ca-key.pem",
              "--template", "ca.info", "--outfile", "ca-cert.pem")  # fmt: skip
    for who, what in (("server", "tls_www_server"), ("client", "tls_www_client")):
        _key(directory, who)
        template = f"cn = {host}\nip_address = {host}\n{what}\nencryption_key\nsigning_key\n"
        (directory / f"{who}.info").write_text(template)
        _certtool(directory, "--generate-certificate", "--load-ca-certificate", "ca-cert.pem",
                  "--load-ca-privkey", "ca-key.pem", "--load-privkey", f"{who}-key.pem",
                  "--template", f"{who}.info", "--outfile", f"{who}-cert.pem")  # fmt: skip
    return directory


@contextmanager
def export(
    destination: Path, made: Path, host: str, port: int, within: Sequence[str] = ()
) -> Iterator[Export]:
    """Serve `destination` for the time of the block; TLS is required."""
    binary = find("nbdkit", "nbdkit")
    server = subprocess.Popen(
        [*within, binary, "-f", "--exit-with-parent", "-i", host, "-p", str(port),
         "--tls=require", f"--tls-certificates={made}", "file", str(destination)],
        stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        _wait(server, port)
        yield Export(host, port, made)
    finally:
        server.terminate()
        server.wait(10)


def _key(directory: Path, name: str) -> None:
    _certtool(directory, "--generate-privkey", "--key-type", "ecdsa", "--curve", "secp256r1",
              "--outfile", f"{name}-key.pem")  # fmt: skip


def _certtool(directory: Path, *arguments: str) -> None:
    subprocess.run(["certtool", *arguments], cwd=directory, check=True, capture_output=True)


def _wait(server: "subprocess.Popen[bytes]", port: int) -> None:
    """Until it listens: nbdkit takes connections from then on."""
    wanted = f":{port:04X} "
    until = time.monotonic() + START_SECONDS
    while server.poll() is None and time.monotonic() < until:
        tables = [f"/proc/{server.pid}/net/tcp", f"/proc/{server.pid}/net/tcp6"]
        lines = "".join(Path(table).read_text() for table in tables).splitlines()
        if any(wanted in line and line.split()[3] == "0A" for line in lines):
            return
        time.sleep(0.02)
    raise RuntimeError("nbdkit does not listen")
