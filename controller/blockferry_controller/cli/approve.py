"""`blockferry approve FLEET WAVE`: let a wave begin."""

import click

from blockferry.errors import NotFoundError
from blockferry_controller.cli.options import common
from blockferry_controller.cli.session import Session


@click.command(name="approve")
@click.argument("fleet")
@click.argument("wave")
@common()
@click.pass_obj
def command(session: Session, /, fleet: str, wave: str) -> None:
    """Open the gate of WAVE, whatever it waits for.

    The batch that runs sees it within a second or two. A wave may be approved
    before it is its turn.
    """
    from blockferry_controller.cli import fleets
    from blockferry_controller.fleet.founding import fleet_in

    with session.store() as store:
        record = fleets.need(store, fleet)
        waves = [one.name for one in fleet_in(record).waves]
        if wave not in waves:
            raise NotFoundError(
                "WAVE_NOT_FOUND",
                f"fleet {record.id} has no wave {wave!r}; it has {', '.join(waves)}",
                fleet=record.id,
                wave=wave,
            )
        store.fleets.want(record.id, f"approved:{wave}", True)
        fleets.tell(session, store, record.id)
