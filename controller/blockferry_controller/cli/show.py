"""`blockferry show ID`: one migration in detail."""

import click

from blockferry_controller.cli.options import common, migration
from blockferry_controller.cli.session import Session


@click.command(name="show")
@migration
@common()
@click.pass_obj
def command(session: Session, /, migration: str) -> None:
    """One migration, or fleet, in detail.

    ID may be a migration's beginning, as long as it is unique.
    """
    from blockferry_controller.cli import fleets
    from blockferry_controller.ui import documents, table

    if fleets.show(session, migration):
        return
    with session.store() as store:
        record = store.get(migration)
    table.write_record(documents.detail(record), session.output)
