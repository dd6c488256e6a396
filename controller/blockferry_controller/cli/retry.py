"""`blockferry retry FLEET`: try again what failed."""

import click

from blockferry_controller.cli.options import common
from blockferry_controller.cli.session import Session


@click.command(name="retry")
@click.argument("fleet")
@click.option(
    "--failed",
    is_flag=True,
    expose_value=False,
    envvar="BLOCKFERRY_FAILED",
    show_envvar=True,
    help="All that failed; this is what it does without, too.",
)
@click.option(
    "--reason",
    "reasons",
    multiple=True,
    metavar="REASON",
    envvar="BLOCKFERRY_REASON",
    show_envvar=True,
    help="Only what failed of this reason, as `show` names it; may be repeated.",
)
@common()
@click.pass_obj
def command(session: Session, /, fleet: str, reasons: tuple[str, ...]) -> None:
    """Put volumes that failed back among those that wait.

    The batch that runs takes them up; when none runs, `blockferry batch` does.
    What the plan refused is tried as it is: its own checks decide then.
    """
    from blockferry_controller.cli import fleets
    from blockferry_controller.engine.fleet_records import ItemState

    with session.store() as store:
        record = fleets.need(store, fleet)
        failed = [
            item.position
            for item in store.fleets.items(record.id)
            if item.state is ItemState.FAILED and (not reasons or item.why in reasons)
        ]
        moved = store.fleets.put(
            record.id, failed, ItemState.WAITING, (ItemState.FAILED,),
            why="", reason="", attempts=0, not_before=None, ended_at=None,
        )  # fmt: skip
        click.echo(f"blockferry: {moved} volumes wait again", err=True)
        fleets.tell(session, store, record.id)
