"""What commands do that take a migration or a fleet: which one is meant, and what is asked."""

import sys
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, Final

import click

from blockferry.errors import NotFoundError, PreconditionError
from blockferry_controller.cli.session import Session

if TYPE_CHECKING:
    from blockferry_controller.engine.fleet_records import FleetRecord, ItemRecord
    from blockferry_controller.engine.state import StateStore
    from blockferry_controller.events import Listener

FOR_PEOPLE: Final = 100
"""Volumes of a fleet in a table, unless told."""


def ask(session: Session, reference: str, want: str, value: object, said: str) -> bool:
    """Leave word for the fleet of that name; False when there is none.

    Args:
        session: Of the command.
        reference: As given; a fleet is named in full.
        want: See engine.fleets.Fleets.want.
        value: None takes the word back.
        said: For people, what will happen.

    Raises:
        PreconditionError: FLEET_ENDED.
    """
    with session.store() as store:
        record = store.fleets.find(reference)
        if record is None:
            return False
        refuse_ended(record)
        store.fleets.want(record.id, want, value)
        click.echo(f"blockferry: {said}", err=True)
        tell(session, store, record.id)
    return True


def show(session: Session, reference: str, limit: int | None) -> bool:
    """Write how the fleet of that name stands; False when there is none.

    Args:
        session: Of the command.
        reference: As given.
        limit: Volumes at most, 0 for all; None: FOR_PEOPLE, and all for programs.
    """
    with session.store() as store:
        if store.fleets.find(reference) is None:
            return False
        tell(session, store, reference, limit)
    return True


def cancel(session: Session, reference: str) -> bool:
    """End the fleet of that name for good; False when there is none."""
    from blockferry_controller.cli.attempt import stopped_by_signals
    from blockferry_controller.cli.fleet_file import now
    from blockferry_controller.fleet.worker import Worker
    from blockferry_controller.ui.display import display

    with session.store() as store, display(session.output, sys.stderr) as listener:
        record = store.fleets.find(reference)
        if record is None:
            return False
        refuse_ended(record)
        store.fleets.want(record.id, "cancelled", True)
        if store.fleets.driven(record.id):
            click.echo("blockferry: asked; whoever drives it stops and removes", err=True)
        else:
            worker = Worker(store, session.migrations_in(store, listener), listener, now=now)
            with stopped_by_signals(worker.interrupt, quiet=session.output == "json"):
                worker.run(record.id)
        tell(session, store, record.id)
    return True


def need(store: "StateStore", reference: str) -> "FleetRecord":
    """The fleet of that name, which has not been cancelled.

    Raises:
        NotFoundError: FLEET_NOT_FOUND.
        PreconditionError: FLEET_ENDED.
    """
    record = store.fleets.find(reference)
    if record is None:
        raise NotFoundError(
            "FLEET_NOT_FOUND",
            f"no fleet {reference!r}; `blockferry batch FLEET.yaml` begins one",
            fleet=reference,
        )
    if record.state == "CANCELLED":
        refuse_ended(record)
    return record


def refuse_ended(record: "FleetRecord") -> None:
    """Raise when nothing more will happen to it.

    Raises:
        PreconditionError: FLEET_ENDED.
    """
    if record.state in {"SUCCEEDED", "CANCELLED"}:
        raise PreconditionError(
            "FLEET_ENDED", f"fleet {record.id} has ended already ({record.state})", fleet=record.id
        )


def tell(session: Session, store: "StateStore", fleet_id: str, limit: int | None = None) -> None:
    """Write how a fleet stands; `limit` as of `show`."""
    from blockferry_controller.ui import fleet_state, table

    record = store.fleets.get(fleet_id)
    if session.output in table.STRUCTURED:
        listing = store.fleet_listing
        chosen = listing.volumes(fleet_id, limit) if limit else listing.all_volumes(fleet_id)
        _stream(session, fleet_state.head(record, store.pairs.of(fleet_id)), chosen)
        return
    limit = FOR_PEOPLE if limit is None else limit
    some = 0 < limit < sum(record.counts.values())
    items = store.fleet_listing.volumes(fleet_id, limit) if some else store.fleets.items(fleet_id)
    pairs = store.pairs.of(fleet_id)
    click.echo(fleet_state.render(fleet_state.document(record, pairs, items)))
    if some:
        click.echo(f"blockferry: {limit} volumes are shown; --limit 0 shows all", err=True)


def _stream(session: Session, head: Mapping[str, Any], items: "Iterable[ItemRecord]") -> None:
    """Write the document of a fleet as its volumes are read."""
    from blockferry_controller.ui import fleet_state
    from blockferry_controller.ui.stream import DocumentStream

    stream = DocumentStream(session.output, "volumes")
    sys.stdout.write(stream.begin(head))
    for item in items:
        sys.stdout.write(stream.row(fleet_state.volume(item)))
    sys.stdout.write(stream.end())


def of_fleets(
    session: Session, listener: "Listener", is_fleet: Callable[[str], bool]
) -> "Listener":
    """Of many volumes at once, people are told what fleets say and what went wrong."""
    from blockferry_controller.events import Event, Noted

    if session.output == "json":
        return listener

    def tell(event: Event) -> None:
        if isinstance(event, Noted) and (is_fleet(event.migration_id) or event.level == "warning"):
            listener(event)

    return tell
