"""`blockferry cleanup`: what ended or lost migrations left in the clouds, and their keys."""

import sys
from typing import TYPE_CHECKING

import click
from msgspec.structs import asdict

from blockferry.errors import BlockferryError, BusyError
from blockferry_controller.cli.options import common
from blockferry_controller.cli.session import LOCAL, Session
from blockferry_controller.notation import printable

if TYPE_CHECKING:
    from blockferry_controller.migration.cleanup import CleanupItem

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
    migration still needs. Volumes that were moved are never touched. Keys on this
    machine that no migration can need any more are destroyed. One cloud's error
    does not keep the others from being cleaned.
    """
    from blockferry_controller.ui import table
    from blockferry_controller.ui.display import display

    with (
        display(session.output, sys.stderr) as listener,
        session.migrations(listener) as migrations,
    ):
        looked_at = clouds or _known_clouds(session)
        items, errors = migrations.cleanup(looked_at, dry_run=dry_run)
    rows = [asdict(item) for item in items]
    errors += _failures(items)
    if not errors:
        table.write_rows(rows, _COLUMNS, session.output, empty="Nothing is left behind.")
        return
    session.document = {"items": rows}
    if rows and session.output not in table.STRUCTURED:
        table.write_rows(rows, _COLUMNS, session.output, empty="")
    for other in errors[1:]:
        click.echo(f"blockferry: also: {printable(other.message)}", err=True)
    raise errors[0]


def _failures(items: "list[CleanupItem]") -> list[BlockferryError]:
    """One error for all that could not be removed."""
    failed = [item for item in items if item.action == "failed"]
    if not failed:
        return []
    first = failed[0]
    return [
        BusyError(
            "LEFTOVERS",
            f"{len(failed)} of {len(items)} could not be removed, the first {first.kind} "
            f"{first.id} in {first.cloud}: {first.reason}; run cleanup again later",
            failed=len(failed),
        )
    ]


def _known_clouds(session: Session) -> list[str]:
    with session.store() as store:
        specs = [record.spec for record in store.listing.migrations()]
    named = {end.cloud for spec in specs for end in (spec.source, spec.destination)}
    clouds = sorted(named - {LOCAL})
    if not clouds:
        click.echo("blockferry: no known migration names a cloud; name one with --cloud", err=True)
    return clouds
