"""Opening the state database: SQLite or PostgreSQL, its file and connections."""

import os
import sqlite3
import time
from pathlib import Path
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.engine import Engine
from sqlalchemy.exc import SQLAlchemyError

from blockferry.errors import PreconditionError, UnreachableError, UsageError
from blockferry_controller.engine.away import (
    STATE_LOCKED,
    STATE_UNREACHABLE,
    explain,
    reason_of,
)
from blockferry_controller.engine.lease import live_hosts, this_host
from blockferry_controller.engine.locks import BUSY_SECONDS, LOCK_SECONDS
from blockferry_controller.engine.schema import prepare
from blockferry_controller.engine.sharing import refuse_hosts, refuse_network
from blockferry_controller.engine.turns import taking_turns

POOL: Final = {"pool_size": 8, "max_overflow": 56}
"""Connections kept, and more at once at most."""
_PATIENCE: Final = {
    "connect_timeout": 10, "keepalives_idle": 10, "keepalives_interval": 5, "keepalives_count": 3,
    "tcp_user_timeout": 20_000,
}  # fmt: skip
"""Of libpq, in seconds and ms: a network that swallows all shows before a lease has expired."""
SILENT_SECONDS: Final = 10.0
"""After which PostgreSQL ends a transaction whose client says nothing. A process that is cut off
in the middle of one would hold its locks, a fleet's among them, for the two hours after which
TCP notices; its lease is lost after 30 s. Longer than LOCK_SECONDS: see locks.py."""
_AGAIN_SECONDS: Final = 0.01


def open_database(url: str, directory: Path | None = None) -> tuple[Engine, Path]:
    """The database with its tables, and the directory for files that belong to it.

    Args:
        url: SQLAlchemy URL.
        directory: None for the default: beside an SQLite file, else the XDG state
            directory. Made with mode 0700 where it is missing.

    Raises:
        UsageError: STATE_URL, not a URL.
        UnreachableError: STATE_UNREACHABLE, the database cannot be opened.
        BusyError: STATE_LOCKED.
        PreconditionError: STATE_DRIVER, what speaks to such a database is not installed, or
            does not work here; STATE_TOO_NEW, a newer Blockferry wrote it; STATE_SHARED,
            an SQLite file that other hosts can open.
    """
    parsed = _parse(url)
    directory = directory or _directory_of(parsed)
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        file = _file_of(parsed)
        if file is not None:
            refuse_network(file)
        engine = _engine(parsed)
        try:
            prepare(engine)
            if file is not None:
                refuse_hosts(file, live_hosts(engine), this_host())
        except BaseException:
            engine.dispose()
            raise
    except (OSError, SQLAlchemyError) as error:
        ours = explain(error)
        if ours.reason == STATE_LOCKED:
            raise ours from error
        raise UnreachableError(
            STATE_UNREACHABLE,
            f"the state database {parsed.render_as_string()} cannot be opened: {reason_of(error)}; "
            "check --state (BLOCKFERRY_STATE)",
        ) from error
    except ImportError as error:
        raise PreconditionError(
            "STATE_DRIVER",
            f"nothing here can speak to {parsed.render_as_string()}: {error}; Blockferry knows "
            "sqlite:/// and postgresql://, and for the latter needs psycopg with its libpq: "
            "`pip install 'psycopg[binary]'`",
        ) from error
    return engine, directory


def _parse(url: str) -> sa.URL:
    try:
        parsed = sa.make_url(url)
    except SQLAlchemyError as error:
        raise UsageError(
            "STATE_URL", f"--state {url!r} is not an SQLAlchemy URL such as sqlite:///state.db"
        ) from error
    # DBOS and we share one driver: psycopg 3.
    return parsed.set(drivername="postgresql+psycopg") if _is_postgresql(parsed) else parsed


def _is_postgresql(url: sa.URL) -> bool:
    return url.drivername in ("postgresql", "postgres")


def _file_of(url: sa.URL) -> Path | None:
    """The database's file; None where it has none."""
    if not url.drivername.startswith("sqlite") or not url.database:
        return None
    return Path(url.database).expanduser().resolve()


def _directory_of(url: sa.URL) -> Path:
    file = _file_of(url)
    if file is not None:
        return file.parent
    base = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    return Path(base) / "blockferry"


def _engine(url: sa.URL) -> Engine:
    return _sqlite(url) if url.drivername.startswith("sqlite") else _postgresql(url)


def _postgresql(url: sa.URL) -> Engine:
    engine = sa.create_engine(url, pool_pre_ping=True, connect_args=dict(_PATIENCE), **POOL)

    @sa.event.listens_for(engine, "connect")
    def _on_connect(connection: Any, _record: object) -> None:
        # Not as a connection's `options`: those of the URL are the user's.
        silent, lock = (round(seconds * 1000) for seconds in (SILENT_SECONDS, LOCK_SECONDS))
        connection.execute(f"SET idle_in_transaction_session_timeout = {silent}")
        connection.execute(f"SET lock_timeout = {lock}")
        connection.commit()

    return engine


def _write_ahead(connection: sqlite3.Connection) -> None:
    """Have a log of what is to be written; of many that are first at it, each waits.

    SQLite itself refuses one of two at once, for their waiting would never end
    (https://www.sqlite.org/c3ref/busy_handler.html).
    """
    give_up_at = time.monotonic() + BUSY_SECONDS
    while True:
        try:
            connection.execute("PRAGMA journal_mode=WAL")
        except sqlite3.OperationalError:
            if time.monotonic() > give_up_at:
                raise
            time.sleep(_AGAIN_SECONDS)
        else:
            return


def _sqlite(url: sa.URL) -> Engine:
    if url.database and not Path(url.database).exists():
        # Facts of migrations are nobody else's business.
        Path(url.database).touch(mode=0o600)
    # A fleet's threads each need a connection for a moment, and queue for the same lock.
    engine = sa.create_engine(
        url,
        connect_args={"timeout": BUSY_SECONDS, "factory": taking_turns(BUSY_SECONDS)},
        pool_timeout=4 * BUSY_SECONDS,
        **POOL,
    )

    @sa.event.listens_for(engine, "connect")
    def _on_connect(connection: Any, _record: object) -> None:
        # Same as DBOS does on its connections: writers queue instead of failing.
        connection.isolation_level = "IMMEDIATE"
        connection.execute("PRAGMA foreign_keys=ON")
        _write_ahead(connection)
        if sqlite3.sqlite_version_info < (3, 42):
            # DBOS 3.4 asks for unixepoch('subsec') from Python 3.12 on, which SQLite
            # knows from 3.42 on: Debian 12 has 3.40, whatever Python runs there.
            connection.create_function("unixepoch", 1, lambda _modifier: time.time())

    return engine
