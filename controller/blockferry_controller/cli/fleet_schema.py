"""`blockferry fleet-schema`: the grammar of fleet files, for editors."""

import click

from blockferry_controller.cli.options import common
from blockferry_controller.cli.session import Session


@click.command(name="fleet-schema")
@common()
@click.pass_obj
def command(session: Session) -> None:
    """Print the JSON Schema of fleet files.

    Editors complete and check a fleet file by it. It is JSON unless -o yaml asks
    for the other.
    """
    from blockferry_controller.fleet.grammar import fleet_schema
    from blockferry_controller.ui import table

    table.write_structured(fleet_schema(), session.output)
