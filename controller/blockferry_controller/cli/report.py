"""`blockferry report ID`: what is left to show when a migration has ended."""

import click

from blockferry_controller.cli.options import FORMATS, common, migration
from blockferry_controller.cli.session import Session


@click.command(name="report")
@migration
@common(("md", *FORMATS))
@click.pass_obj
def command(session: Session, /, migration: str) -> None:
    """What was moved, how long each step took, and what was proven.

    Markdown unless --output says otherwise. ID may be its beginning, as long as
    it is unique.
    """
    from blockferry_controller.report import document, markdown
    from blockferry_controller.ui import table

    with session.store() as store:
        record = store.get(migration)
    report = document.build(record)
    if session.output in {None, "md"}:
        click.echo(markdown.render(report), nl=False)
    else:
        table.write_record(report, session.output)
