"""Who drives a migration: a lease on it, renewed while its holder lives.

Rules:
* A lease is taken for LEASE_SECONDS and renewed at a third of that. Whoever
  finds it expired, or finds its holder dead on the same host, may take it over
  and raises the epoch; the agents then refuse the former holder.
* A holder that could not renew in time must assume it lost the lease.
* What time it is, the database says (`now`), to every process alike, when a lease is taken,
  renewed or looked at: a host whose clock is an hour off neither loses nor steals one. How
  long ago it renewed, a holder measures by its own clock that only goes forward.
"""

import functools
import logging
import os
import socket
import threading
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import sqlalchemy as sa
from msgspec import Struct
from sqlalchemy.engine import RowMapping
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.functions import FunctionElement

from blockferry_controller.engine import tables as t
from blockferry_controller.engine.away import reason_of

_log = logging.getLogger(__name__)

LEASE_SECONDS: Final = 30.0


class now(FunctionElement[float]):  # noqa: N801 - as SQL has it
    """Seconds since 1970 on the database's clock; SQLite's is this host's."""

    inherit_cache = True
    type = sa.Float()


@compiles(now)
def _sqlite_now(_element: now, _compiler: Any, **_: object) -> str:
    # unixepoch() has no fractions before 3.42, which Debian 12 has not.
    return "((julianday('now') - 2440587.5) * 86400.0)"


@compiles(now, "postgresql")
def _postgresql_now(_element: now, _compiler: Any, **_: object) -> str:
    # Not now(): that is when the transaction began, which may have waited for a lock since.
    return "CAST(EXTRACT(EPOCH FROM clock_timestamp()) AS DOUBLE PRECISION)"


def expiry(seconds: float | None = None) -> sa.ColumnElement[float]:
    """When a lease ends that is taken or renewed by this statement; LEASE_SECONDS unless told."""
    return now() + (LEASE_SECONDS if seconds is None else seconds)


def unexpired(expires_at: sa.ColumnElement[float]) -> sa.ColumnElement[bool]:
    """Whether a lease still runs, when the statement is executed."""
    return expires_at > now()


def held(expires_at: sa.ColumnElement[float]) -> sa.ColumnElement[bool]:
    """The same as the column that `alive` looks at."""
    return unexpired(expires_at).label("held")


def alive(row: RowMapping) -> bool:
    """Whether the holder may still be at work; a row with `holder` and `held`."""
    return bool(row["holder"] and row["held"]) and not Holder.parse(row["holder"]).dead


class Holder(Struct, frozen=True):
    """A controller process, told apart from every other, past ones included.

    Attributes:
        host: Machine id and boot id in short: a pid means nothing elsewhere.
        pid: Process id on that host.
        started: Kernel start time of the process, since pids are used again.
        nonce: Random, one per process.
    """

    host: str
    pid: int
    started: str
    nonce: str

    def __str__(self) -> str:
        return f"{self.host}/{self.pid}/{self.started}/{self.nonce}"

    @classmethod
    def parse(cls, text: str) -> "Holder":
        """Inverse of `str()`."""
        host, pid, started, nonce = text.split("/")
        return cls(host, int(pid), started, nonce)

    @classmethod
    def of_this_process(cls) -> "Holder":
        """This process."""
        pid = os.getpid()
        return cls(this_host(), pid, _started(pid) or "0", uuid.uuid4().hex[:8])

    @property
    def words(self) -> str:
        """For people."""
        return f"pid {self.pid} on {self.host.rpartition('-')[0]}"

    @property
    def dead(self) -> bool:
        """True when it is certain: same host and boot, and no such process."""
        return self.host == this_host() and _started(self.pid) != self.started


@functools.cache
def this_host() -> str:
    """Name and boot of this machine, as in Holder; asked for at every look at a lease."""
    boot_id = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    return f"{socket.gethostname()}-{boot_id[:8]}"


def _started(pid: int) -> str | None:
    """Field 22 of /proc/PID/stat (proc(5)); None when there is no such process."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace")
    except OSError:
        return None
    # The command name before it may hold spaces and parentheses.
    fields = stat.rpartition(")")[2].split()
    return None if fields[0] in ("Z", "X") else fields[19]


def live_hosts(engine: sa.Engine) -> set[str]:
    """Hosts of all processes that drive something in this database."""
    leases = [(table.c.holder, table.c.expires_at) for table in (t.leases, t.fleets, t.workers)]
    with engine.connect() as connection:
        return {
            Holder.parse(holder).host
            for holder_column, expires_at in leases
            for holder in connection.scalars(
                sa.select(holder_column).where(holder_column != "", unexpired(expires_at))
            )
        }


class LeaseKeeper:
    """Renews a lease in the background until closed.

    Args:
        renew: Returns False when the lease is no longer ours. It may hang: the lease is
            lost LEASE_SECONDS after the last renewal that was begun and answered.
        lost: Called once, from a thread of the keeper, when that happened.
    """

    def __init__(self, renew: Callable[[], bool], lost: Callable[[], None]) -> None:
        self._renew = renew
        self._lost = lost
        self._renewed_at = time.monotonic()
        self._ended = threading.Event()
        self._once = threading.Lock()
        self._threads = [
            threading.Thread(target=work, name="lease", daemon=True)
            for work in (self._run, self._watch)
        ]
        for thread in self._threads:
            thread.start()

    @property
    def lapsed(self) -> bool:
        """Whether the lease has run out: a process that was stopped knows before it is told."""
        return self._left() <= 0

    def _run(self) -> None:
        while not self._ended.wait(LEASE_SECONDS / 3):
            begun_at = time.monotonic()
            try:
                held = self._renew()
            except (SQLAlchemyError, OSError) as error:
                # A database that is away for a moment; who takes over must ask it, too.
                _log.warning("the lease could not be renewed: %s", reason_of(error))
                _log.debug("as this tells", exc_info=True)
            else:
                if not held:
                    self._end()
                    return
                self._renewed_at = begun_at

    def _watch(self) -> None:
        """A database that does not answer may keep a renewal for ever."""
        while not self._ended.wait(max(0.0, self._left())):
            if self._left() <= 0:
                self._end()
                return

    def _left(self) -> float:
        return self._renewed_at + LEASE_SECONDS - time.monotonic()

    def _end(self) -> None:
        with self._once:
            if self._ended.is_set():
                return
            self._ended.set()
        self._lost()

    def close(self) -> None:
        """Stop renewing. Idempotent."""
        self._ended.set()
        for thread in self._threads:
            thread.join(timeout=LEASE_SECONDS / 3)
