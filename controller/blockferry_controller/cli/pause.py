"""`blockferry pause ID`: hold a running migration without losing anything."""

import click

from blockferry_controller.cli.options import common, migration
from blockferry_controller.cli.session import Session


@click.command(name="pause")
@migration
@common()
@click.pass_obj
def command(session: Session, /, migration: str) -> None:
    """Have the process that drives a migration hold it.

    The source sends nothing, what it has sent is made durable, instances and
    attachments stay. `blockferry resume ID` goes on. ID may be its beginning, as
    long as it is unique. Of a fleet, by its name, nothing new begins, and what
    runs is stopped without loss and without its instances.
    """
    from blockferry_controller.cli import fleets
    from blockferry_controller.migration.asking import Asking
    from blockferry_controller.ui import documents, table

    said = "what runs stops without loss, nothing new begins"
    if fleets.ask(session, migration, "paused", True, said):
        return
    with session.store() as store:
        own = store.get(migration).id
        request = Asking(store).pause(own)
        record = store.get(own)
    if request.answered_at is None:
        click.echo("blockferry: asked; it holds as soon as bytes would move", err=True)
    table.write_record(documents.asked(record, request), session.output)
