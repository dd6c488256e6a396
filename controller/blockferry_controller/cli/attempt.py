"""One attempt at a migration, as a person sees it: begun, shown, stopped, told.

`migrate`, `copy` and `resume` end here. While the attempt runs, the first
SIGINT or SIGTERM asks it to stop in order, the second ends the process at once:
even then nothing is lost that was committed.
"""

import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import TYPE_CHECKING

import click

from blockferry.errors import BlockferryError
from blockferry_controller.cli.session import Session
from blockferry_controller.engine.away import STATE_AWAY, explained
from blockferry_controller.events import Listener, Noted
from blockferry_controller.notation import format_bytes
from blockferry_controller.spec import Spec
from blockferry_controller.ui import documents, table
from blockferry_controller.ui.display import display

if TYPE_CHECKING:
    from blockferry_controller.engine.records import MigrationRecord
    from blockferry_controller.engine.state import StateStore
    from blockferry_controller.migration.service import Migrations

_STOPPING = b"\nblockferry: stopping in order; once more to stop at once\n"


def begin(session: Session, spec: Spec, *, profile: bool = False) -> None:
    """Make a migration of `spec`, run it, write its result to standard output.

    Args:
        session: Of the command.
        spec: What is to be done.
        profile: Whether the result says where the time went; for `copy` only.

    Raises:
        BlockferryError: it failed; what is known of it is in the session.
    """
    with _served(session) as (store, migrations, listener):
        record = migrations.create(spec)
        _introduce(record, listener)
        record = _attempt(session, store, migrations, record.id, migrations.run)
    _tell(session, record, profile=profile)


def resume(session: Session, reference: str) -> None:
    """Go on with the migration that `reference`, an id or its beginning, names."""
    with _served(session) as (store, migrations, listener):
        record = store.get(reference)
        _introduce(record, listener)
        record = _attempt(session, store, migrations, record.id, migrations.resume)
    _tell(session, record)


@contextmanager
def _served(session: Session) -> "Iterator[tuple[StateStore, Migrations, Listener]]":
    with session.store() as store, display(session.output, sys.stderr) as listener:
        yield store, session.migrations_in(store, listener), listener


def _introduce(record: "MigrationRecord", listener: Listener) -> None:
    """Tell the id first: it is what resuming after a crash needs."""
    size = f", {format_bytes(record.size_bytes)}" if record.size_bytes else ""
    told = f"migration {record.id}: {record.source} -> {record.destination}{size}"
    listener(Noted(record.id, "info", told))


def _attempt(
    session: Session,
    store: "StateStore",
    migrations: "Migrations",
    migration_id: str,
    work: "Callable[[str], MigrationRecord]",
) -> "MigrationRecord":
    try:
        with stopped_by_signals(migrations.interrupt, quiet=session.output == "json"):
            return work(migration_id)
    except BaseException as error:
        if isinstance(error, BlockferryError) and error.reason in STATE_AWAY:
            session.hint = f"once it answers: blockferry resume {migration_id}"
        with suppress(BlockferryError), explained():
            _remember(session, store.get(migration_id))
        raise


def _tell(session: Session, record: "MigrationRecord", *, profile: bool = False) -> None:
    document = documents.result(record)
    found = record.facts.get("profile") if profile else None
    if found is None:
        table.write_record(document, session.output)
        return
    from blockferry_controller.report import profile as where

    if session.output in table.STRUCTURED:
        table.write_structured({**document, "profile": where.document(found)}, session.output)
        return
    table.write_record(document, session.output)
    click.echo("\n" + "\n".join(where.lines(found)))


def _remember(session: Session, record: "MigrationRecord") -> None:
    session.document = documents.result(record)
    # With nothing committed there is nothing to go on from: the error says what to do.
    stopped = record.state in {"INTERRUPTED", "PAUSED", "RUNNING"}
    if stopped or (record.state == "FAILED" and record.progress.committed_bytes):
        session.hint = f"go on with: blockferry resume {record.id}"


@contextmanager
def stopped_by_signals(interrupt: Callable[[], None], *, quiet: bool) -> Iterator[None]:
    """The first SIGINT or SIGTERM calls `interrupt`, the second ends the process."""

    def stop(number: int, frame: FrameType | None) -> None:
        del number, frame
        for sign, handler in before.items():
            signal.signal(sign, handler)
        if not quiet:
            # Not through sys.stderr: its lock may be held by the code we interrupt.
            os.write(2, _STOPPING)
        interrupt()

    before = {sign: signal.signal(sign, stop) for sign in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for sign, handler in before.items():
            signal.signal(sign, handler)
