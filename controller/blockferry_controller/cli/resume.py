"""`blockferry resume ID`: go on from the commit point, or from a pause."""

import click

from blockferry_controller.cli.options import common, migration
from blockferry_controller.cli.session import Session


@click.command(name="resume")
@migration
@common()
@click.pass_obj
def command(session: Session, /, migration: str) -> None:
    """Go on with a migration that was interrupted, failed or paused.

    What the destination has committed is not sent again. Options of the first
    command line hold. One that is paused and still driven by another process is
    only told to go on. ID may be its beginning, as long as it is unique. A fleet,
    by its name, is only not paused any more: `blockferry batch` drives it.
    """
    from blockferry_controller.cli import attempt, fleets
    from blockferry_controller.migration.asking import Asking
    from blockferry_controller.ui import documents, table

    if fleets.ask(session, migration, "paused", None, "the fleet is not paused any more"):
        return
    with session.store() as store:
        own = store.get(migration).id
        asking = Asking(store)
        if asking.is_held(own):
            request = asking.go_on(own)
            table.write_record(documents.asked(store.get(own), request), session.output)
            return
    attempt.resume(session, own)
