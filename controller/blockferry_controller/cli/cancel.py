"""`blockferry cancel ID`: give up for good."""

import sys

import click

from blockferry_controller.cli.options import common, migration
from blockferry_controller.cli.session import Session


@click.command(name="cancel")
@migration
@common()
@click.pass_obj
def command(session: Session, /, migration: str) -> None:
    """Stop a migration for good and remove what it made, the copy included.

    The source volume stays as it is. ID may be its beginning, as long as it is
    unique. Of a fleet, by its name, all that has not ended.
    """
    from blockferry_controller.cli import fleets
    from blockferry_controller.ui import documents, table
    from blockferry_controller.ui.display import display

    if fleets.cancel(session, migration):
        return
    with (
        display(session.output, sys.stderr) as listener,
        session.migrations(listener) as migrations,
    ):
        record = migrations.cancel(session.full_id(migration))
    table.write_record(documents.result(record), session.output)
