"""`blockferry resume ID`: go on from the commit point."""

import click

from blockferry_controller.cli.options import common, migration
from blockferry_controller.cli.session import Session


@click.command(name="resume")
@migration
@common()
@click.pass_obj
def command(session: Session, /, migration: str) -> None:
    """Go on with a migration that was interrupted or failed.

    What the destination has committed is not sent again. Options of the first
    command line hold; ID may be its beginning, as long as it is unique.
    """
    from blockferry_controller.cli import attempt

    attempt.resume(session, migration)
