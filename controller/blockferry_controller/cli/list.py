"""`blockferry list`: migrations, or fleets, oldest first."""

import click

from blockferry_controller.cli.options import common, rows
from blockferry_controller.cli.session import Session

_FOR_PEOPLE = 100


@click.command(name="list")
@click.option(
    "--fleets",
    is_flag=True,
    envvar="BLOCKFERRY_FLEETS",
    show_envvar=True,
    help="Fleets instead, with how many volumes stand where.",
)
@rows(_FOR_PEOPLE)
@common()
@click.pass_obj
def command(session: Session, /, *, fleets: bool, limit: int | None) -> None:
    """All migrations, those of fleets among them, or all fleets; the newest last."""
    from blockferry_controller.ui import table

    if limit is None:
        limit = 0 if session.output in table.STRUCTURED else _FOR_PEOPLE
    (_fleets if fleets else _migrations)(session, limit)


def _fleets(session: Session, limit: int) -> None:
    from blockferry_controller.ui import fleet_state, table

    with session.store() as store:
        shown = [fleet_state.summary(one) for one in store.fleet_listing.newest(limit or None)]
        older = store.fleet_listing.count() - len(shown)
    if session.output in table.STRUCTURED:
        table.write_stream(shown, session.output)
    elif shown:
        click.echo(fleet_state.render_fleets(shown))
        _tell(older)
    else:
        click.echo("No fleets yet; `blockferry batch FLEET.yaml` begins one.", err=True)


def _migrations(session: Session, limit: int) -> None:
    from blockferry_controller.ui import documents, table

    with session.store() as store:
        structured = session.output in table.STRUCTURED
        records = store.listing.newest(limit) if limit else store.listing.migrations()
        items = map(documents.list_item, records)
        if structured:
            table.write_stream(items, session.output)
            return
        shown = list(items)
        older = store.listing.count() - len(shown)
    table.write_rows(shown, documents.LIST_COLUMNS, session.output, empty="No migrations yet.")
    _tell(older)


def _tell(older: int) -> None:
    """Say what a table leaves out."""
    if older > 0:
        click.echo(f"blockferry: {older} older ones are not shown; --limit 0 shows all", err=True)
