"""A PostgreSQL server of the tests' own: the system's programs, a directory, a Unix socket.

No port is opened and nothing outlives it. It refuses to run as root, and so runs as
`nobody` then. Nothing is synced to disk: what is tested is what it says, not power cuts.
"""

import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path

import sqlalchemy as sa

_SETTINGS = {
    "listen_addresses": "", "fsync": "off", "full_page_writes": "off", "synchronous_commit": "off",
    "max_connections": "300", "shared_buffers": "32MB", "max_wal_size": "256MB",
}  # fmt: skip


@dataclass
class PostgresServer:
    """A running server. Thread-safe."""

    directory: Path
    process: "subprocess.Popen[bytes]"
    _numbers: Iterator[int] = field(default_factory=lambda: count(1))

    def url(self, database: str) -> str:
        """What `--state` takes."""
        return f"postgresql://tests@/{database}?host={self.directory}"

    def new_database(self) -> str:
        """The URL of a database with nothing in it."""
        name = f"state_{next(self._numbers)}"
        self.run(f"CREATE DATABASE {name} TEMPLATE template0")
        return self.url(name)

    def run(self, statement: str) -> None:
        """Outside of every transaction, as the superuser."""
        url = sa.make_url(self.url("postgres")).set(drivername="postgresql+psycopg")
        engine = sa.create_engine(url, isolation_level="AUTOCOMMIT", poolclass=sa.NullPool)
        with engine.connect() as connection:
            connection.exec_driver_sql(statement)


def programs() -> Path:
    """Where initdb and postgres are: in PATH, or where Debian and Ubuntu keep them.

    Raises:
        FileNotFoundError: they are not installed.
    """
    found = shutil.which("initdb")
    if found:
        return Path(found).resolve().parent
    newest = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=_version)
    if not newest:
        raise FileNotFoundError(
            "initdb: the tests run a PostgreSQL of their own; install the package `postgresql` "
            "(no service needs to run)"
        )
    return newest[-1].parent


def _version(initdb: Path) -> float:
    return float(initdb.parent.parent.name)


@contextmanager
def postgres() -> Iterator[PostgresServer]:
    """A server until the block ends."""
    bin_ = programs()
    # Not pytest's directory: a socket's path has 107 characters, and others may not enter it.
    directory = Path(tempfile.mkdtemp(prefix="blockferry-pg-"))
    user = None
    if os.geteuid() == 0:
        user = "nobody"
        os.chown(directory, pwd.getpwnam(user).pw_uid, -1)
    try:
        data = directory / "data"
        subprocess.run(
            [bin_ / "initdb", "-D", data, "-U", "tests", "-A", "trust", "-E", "UTF8",
             "--locale", "C", "--no-sync"],
            user=user, cwd=directory, check=True, capture_output=True, timeout=120,
        )  # fmt: skip
        options = [part for key, text in _SETTINGS.items() for part in ("-c", f"{key}={text}")]
        with (directory / "log").open("wb") as log:
            process = subprocess.Popen(
                [bin_ / "postgres", "-D", data, "-k", directory, *options],
                user=user, cwd=directory, stdout=log, stderr=log,
            )  # fmt: skip
        try:
            _wait(bin_, directory, process)
            yield PostgresServer(directory, process)
        finally:
            # "Immediate": connections of tests that failed need not be waited for.
            process.send_signal(signal.SIGQUIT)
            process.wait(60)
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def _wait(bin_: Path, directory: Path, process: "subprocess.Popen[bytes]") -> None:
    deadline = time.monotonic() + 60
    ready = [str(bin_ / "pg_isready"), "-q", "-h", str(directory)]
    while subprocess.run(ready, check=False).returncode:
        if process.poll() is not None or time.monotonic() > deadline:
            raise RuntimeError((directory / "log").read_text(errors="replace"))
        time.sleep(0.05)
