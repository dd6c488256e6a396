"""`blockferry cleanup`: what ended or lost migrations left in the clouds."""

import dataclasses
import sys

import click

from blockferry_controller.cli.options import common
from blockferry_controller.cli.session import LOCAL, Session

_COLUMNS = (
    ("cloud", "cloud"),
    ("kind", "kind"),
    ("name", "name"),
    ("id", "id"),
    ("migration", "migration_id"),
    ("action", "action"),
    ("reason", "reason"),
)


@click.command(name="cleanup")
@click.option(
    "--cloud",
    "clouds",
    multiple=True,
    metavar="CLOUD",
    envvar="BLOCKFERRY_CLOUD",
    show_envvar=True,
    help="Where to look; may be repeated.  [the clouds of all known migrations]",
)
@click.option(
    "--dry-run",
    is_flag=True,
    envvar="BLOCKFERRY_DRY_RUN",
    show_envvar=True,
    help="Say what would be removed, remove nothing.",
)
@common()
@click.pass_obj
def command(session: Session, clouds: tuple[str, ...], *, dry_run: bool) -> None:
    """Remove what migrations left behind that nobody works on any more.

    Finds it by Blockferry's own tags, and keeps what a running or resumable
    migration still needs. Volumes that were moved are never touched.
    """
    from blockferry_controller.ui import table
    from blockferry_controller.ui.display import display

    with (
        display(session.output, sys.stderr) as listener,
        session.migrations(listener) as migrations,
    ):
        items = migrations.cleanup(list(clouds) or _known_clouds(session), dry_run=dry_run)
    table.write_rows(
        [dataclasses.asdict(item) for item in items],
        _COLUMNS,
        session.output,
        empty="Nothing is left behind.",
    )


def _known_clouds(session: Session) -> list[str]:
    with session.store() as store:
        specs = [record.spec for record in store.list_migrations()]
    named = {end.cloud for spec in specs for end in (spec.source, spec.destination)}
    clouds = sorted(named - {LOCAL})
    if not clouds:
        click.echo("blockferry: no known migration names a cloud; name one with --cloud", err=True)
    return clouds
