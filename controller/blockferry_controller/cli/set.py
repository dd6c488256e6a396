"""`blockferry set ID limit=RATE`: change what a running migration keeps to."""

from typing import Final

import click

from blockferry.errors import UsageError
from blockferry_controller.cli.options import Parsed, common, migration
from blockferry_controller.cli.session import Session
from blockferry_controller.notation import parse_rate

_KNOWN: Final = {"limit": parse_rate}


def _parse_setting(text: str) -> tuple[str, int]:
    """`limit=200MiB/s` as name and value."""
    name, equals, value = text.partition("=")
    if not equals or name not in _KNOWN:
        known = ", ".join(f"{one}=…" for one in _KNOWN)
        raise UsageError("INVALID_SETTING", f"{text!r} is not a setting; known are {known}")
    return name, _KNOWN[name](value)


@click.command(name="set")
@migration
@click.argument("setting", metavar="limit=RATE", type=Parsed("setting", _parse_setting))
@common()
@click.pass_obj
def command(session: Session, /, migration: str, setting: tuple[str, int]) -> None:
    """Change the bandwidth limit of a migration, while it runs or for when it goes on.

    RATE is a rate such as 200MiB/s, or none. It replaces what --limit said, for
    good. ID may be its beginning, as long as it is unique. A fleet's, by its
    name, is the budget of all its volumes together.
    """
    from blockferry_controller.cli import fleets
    from blockferry_controller.migration.asking import Asking
    from blockferry_controller.ui import documents, table

    if fleets.ask(session, migration, setting[0], setting[1], "it is shared out anew"):
        return
    with session.store() as store:
        own = store.get(migration).id
        request = Asking(store).limit(own, setting[1])
        record = store.get(own)
    if request.answered_at is None:
        click.echo("blockferry: noted; it holds as soon as bytes move", err=True)
    table.write_record(documents.asked(record, request), session.output)
