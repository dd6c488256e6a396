"""`blockferry history [ID]`: what has happened, newest first."""

from datetime import datetime, timedelta, timezone
from itertools import islice
from typing import TYPE_CHECKING

import click

from blockferry.errors import UsageError
from blockferry_controller.cli.options import Parsed, common, migration_if_any, rows
from blockferry_controller.cli.session import Session
from blockferry_controller.notation import parse_duration

if TYPE_CHECKING:
    from blockferry_controller.engine.state import StateStore

_FOR_PEOPLE = 50


def parse_since(text: str) -> datetime:
    """A time in UTC, from one in ISO 8601 or from how long ago it is.

    Raises:
        UsageError: INVALID_TIME.
    """
    now = datetime.now(timezone.utc)
    try:
        return now - timedelta(seconds=parse_duration(text))
    except UsageError:
        pass
    try:
        moment = datetime.fromisoformat(text.strip().replace("Z", "+00:00"))
    except ValueError:
        raise UsageError(
            "INVALID_TIME",
            f"{text!r} is no time; write how long ago it is, as 2h or 3d, or 2026-11-20T22:00 (UTC "
            "unless it names an offset)",
            value=text,
        ) from None
    return (moment if moment.tzinfo else moment.replace(tzinfo=timezone.utc)).astimezone(
        timezone.utc
    )


@click.command(name="history")
@migration_if_any
@click.option(
    "--since",
    type=Parsed("time", parse_since),
    metavar="TIME",
    envvar="BLOCKFERRY_SINCE",
    show_envvar=True,
    help="Not what is older: 2h, 3d, or 2026-11-20T22:00 in UTC.",
)
@rows(_FOR_PEOPLE)
@common()
@click.pass_obj
def command(
    session: Session, /, migration: str | None, *, since: datetime | None, limit: int | None
) -> None:
    """What has happened, to one migration or fleet or to all, the newest first.

    ID may be a migration's beginning, as long as it is unique, or a fleet's name.
    """
    from blockferry_controller.ui import history, table

    with session.store() as store:
        fleet, one = _meant(store, migration)
        structured = session.output in table.STRUCTURED
        if limit is None:
            limit = 0 if structured else _FOR_PEOPLE
        found = store.history.newest(fleet=fleet, migration=one, since=since)
        entries = islice(found, limit or None)
        if structured:
            table.write_stream((one.document() for one in entries), session.output)
            return
        lines = [history.row(entry) for entry in entries]
        table.write_rows(lines, history.COLUMNS, session.output, empty="Nothing happened yet.")
        if next(found, None) is not None:
            click.echo(f"blockferry: the newest {len(lines)}; --limit 0 shows all", err=True)


def _meant(store: "StateStore", reference: str | None) -> tuple[str, str]:
    """A fleet, a migration, or neither."""
    if reference is None:
        return "", ""
    if store.fleets.find(reference) is not None:
        return reference, ""
    return "", store.get(reference).id
