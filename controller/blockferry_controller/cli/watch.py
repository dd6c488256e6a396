"""`blockferry watch ID`: follow a migration that another process drives."""

import sys
import time
from typing import TYPE_CHECKING, Final

import click

from blockferry.errors import CLASSES, BlockferryError, CancelledError
from blockferry_controller.cli.options import common, migration
from blockferry_controller.cli.session import Session

if TYPE_CHECKING:
    from blockferry_controller.engine.records import MigrationRecord

_LOOK_SECONDS: Final = 0.5


@click.command(name="watch")
@migration
@common()
@click.pass_obj
def command(session: Session, /, migration: str) -> None:
    """Show what happens to a migration until it ends, and exit as it does.

    Changes nothing: Ctrl-C ends the watching, the migration goes on. ID may be
    its beginning, as long as it is unique.
    """
    from blockferry_controller.migration.watching import Watching
    from blockferry_controller.ui import documents, table
    from blockferry_controller.ui.display import display

    with session.store() as store, display(session.output, sys.stderr) as listener:
        own = store.get(migration).id
        session.hint = f"migration {own} goes on without being watched"
        watching = Watching(store, own)
        while True:
            record, over = watching.look()
            for event in watching.events(record):
                listener(event)
            if over:
                break
            time.sleep(_LOOK_SECONDS)
    session.hint = ""
    document = documents.result(record)
    if record.state != "SUCCEEDED":
        session.document = document
        raise _as_it_ended(record)
    table.write_record(document, session.output)


def _as_it_ended(record: "MigrationRecord") -> BlockferryError:
    """The error that the migration's own process ended with, as far as it is known."""
    known = record.error
    if record.state == "CANCELLED" or known is None:
        return CancelledError(
            record.state,
            f"migration {record.id} is {record.state}"
            + ("" if record.state == "CANCELLED" else f"; `blockferry resume {record.id}` goes on"),
            migration=record.id,
        )
    code = known["exit_code"]
    cls = next(cls for cls in CLASSES if cls.meaning.exit_code == code)
    return cls(known["reason"], known["message"], **known["metadata"])
