"""`blockferry skip FLEET VOLUME`: leave a volume out."""

import click

from blockferry.errors import BusyError, NotFoundError
from blockferry_controller.cli.options import common
from blockferry_controller.cli.session import Session


@click.command(name="skip")
@click.argument("fleet")
@click.argument("volumes", nargs=-1, required=True, metavar="VOLUME...")
@click.option(
    "--because",
    default="skipped",
    metavar="TEXT",
    envvar="BLOCKFERRY_BECAUSE",
    show_envvar=True,
    help="Why, for the report.",
)
@common()
@click.pass_obj
def command(session: Session, /, fleet: str, volumes: tuple[str, ...], because: str) -> None:
    """Leave volumes out, by id or name: what waits, or has failed.

    What of a failed one is kept in the clouds stays until its migration is
    cancelled.
    """
    from blockferry_controller.cli import fleets
    from blockferry_controller.engine.fleet_records import ItemState

    with session.store() as store:
        record = fleets.need(store, fleet)
        items = store.fleets.items(record.id)
        for volume in volumes:
            named = [item.position for item in items if volume in (item.volume_id, item.name)]
            if not named:
                raise NotFoundError(
                    "VOLUME_NOT_FOUND", f"fleet {record.id} has no volume {volume}", volume=volume
                )
            waiting = (ItemState.WAITING, ItemState.FAILED)
            moved = store.fleets.put(
                record.id, named, ItemState.SKIPPED, waiting, why="", reason=because
            )
            if moved < len(named):
                raise BusyError(
                    "VOLUME_BUSY",
                    f"volume {volume} neither waits nor has failed; `blockferry show {record.id}` "
                    "tells its migration, which can be cancelled",
                    volume=volume,
                )
        fleets.tell(session, store, record.id)
