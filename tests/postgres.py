"""A PostgreSQL server of the tests' own: the system's programs, a directory, a Unix socket.

No port is opened unless asked for, and nothing outlives it. It refuses to run as root, and so
runs as `nobody` then. Nothing is synced to disk: what is tested is what it says, not power cuts.
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
    """A server. Thread-safe but for its start and stop.

    Attributes:
        port: On the loopback interface, for those who connect by TCP; 0: there is none.
    """

    directory: Path
    bin: Path
    user: str | None
    port: int = 0
    process: "subprocess.Popen[bytes] | None" = None
    _numbers: Iterator[int] = field(default_factory=lambda: count(1))

    def start(self) -> None:
        """Have it answer, on what it had before."""
        settings = {**_SETTINGS, "listen_addresses": "127.0.0.1"} if self.port else _SETTINGS
        options = [part for key, text in settings.items() for part in ("-c", f"{key}={text}")]
        # It names the socket, too.
        options += ["-p", str(self.port)] if self.port else []
        with (self.directory / "log").open("ab") as log:
            self.process = subprocess.Popen(
                [self.bin / "postgres", "-D", self.directory / "data", "-k", self.directory,
                 *options],
                user=self.user, cwd=self.directory, stdout=log, stderr=log,
            )  # fmt: skip
        deadline = time.monotonic() + 60
        ready = [str(self.bin / "pg_isready"), "-q", "-h", str(self.directory)]
        ready += ["-p", str(self.port)] if self.port else []
        while subprocess.run(ready, check=False).returncode:
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError((self.directory / "log").read_text(errors="replace"))
            time.sleep(0.05)

    def stop(self) -> None:
        """End it and every connection, as a crash does: what was committed, it knows again."""
        if self.process is not None:
            self.process.send_signal(signal.SIGQUIT)
            self.process.wait(60)
            self.process = None

    def url(self, database: str) -> str:
        """What `--state` takes."""
        if self.port:
            return f"postgresql://tests@127.0.0.1:{self.port}/{database}"
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
def postgres(port: int = 0) -> Iterator[PostgresServer]:
    """A server until the block ends; by default nobody connects to it by TCP."""
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
        server = PostgresServer(directory, bin_, user, port)
        try:
            server.start()
            yield server
        finally:
            # Connections of tests that failed need not be waited for.
            server.stop()
    finally:
        shutil.rmtree(directory, ignore_errors=True)
