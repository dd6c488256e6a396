"""`blockferry list`: all migrations, oldest first."""

import click

from blockferry_controller.cli.options import common
from blockferry_controller.cli.session import Session


@click.command(name="list")
@common()
@click.pass_obj
def command(session: Session) -> None:
    """All migrations, the newest last."""
    from blockferry_controller.ui import documents, table

    with session.store() as store:
        records = store.list_migrations()
    table.write_rows(
        [documents.list_item(record) for record in records],
        documents.LIST_COLUMNS,
        session.output,
        empty="No migrations yet.",
    )
