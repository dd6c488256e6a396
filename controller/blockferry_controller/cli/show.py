"""`blockferry show ID`: one migration in detail."""

import click

from blockferry_controller.cli import fleets
from blockferry_controller.cli.options import common, migration, rows
from blockferry_controller.cli.session import Session


@click.command(name="show")
@migration
@rows(fleets.FOR_PEOPLE)
@common()
@click.pass_obj
def command(session: Session, /, migration: str, *, limit: int | None) -> None:
    """One migration, or fleet, in detail.

    ID may be a migration's beginning, as long as it is unique. Of a fleet's volumes at most
    --limit are shown, first those that move, have failed, wait.
    """
    from blockferry_controller.ui import documents, table

    if fleets.show(session, migration, limit):
        return
    with session.store() as store:
        record = store.get(migration)
    table.write_record(documents.detail(record), session.output)
