"""`blockferry list`: migrations, oldest first."""

import click

from blockferry_controller.cli.options import common, rows
from blockferry_controller.cli.session import Session

_FOR_PEOPLE = 100


@click.command(name="list")
@rows(_FOR_PEOPLE)
@common()
@click.pass_obj
def command(session: Session, /, *, limit: int | None) -> None:
    """All migrations, or the newest, the newest last."""
    from blockferry_controller.ui import documents, table

    with session.store() as store:
        structured = session.output in table.STRUCTURED
        if limit is None:
            limit = 0 if structured else _FOR_PEOPLE
        records = store.listing.newest(limit) if limit else store.listing.migrations()
        items = map(documents.list_item, records)
        if structured:
            table.write_stream(items, session.output)
            return
        shown = list(items)
        older = store.listing.count() - len(shown)
    table.write_rows(shown, documents.LIST_COLUMNS, session.output, empty="No migrations yet.")
    if older > 0:
        click.echo(f"blockferry: {older} older ones are not shown; --limit 0 shows all", err=True)
