"""`blockferry worker`: move volumes of all fleets of a state, beside others that do."""

import sys

import click

from blockferry_controller.cli.options import common
from blockferry_controller.cli.session import Session


@click.command(name="worker")
@click.option(
    "--room",
    metavar="N",
    type=click.IntRange(1, 1000),
    envvar="BLOCKFERRY_ROOM",
    show_envvar=True,
    help="Volumes that this process moves at a time.  [16]",
)
@common()
@click.pass_obj
def command(session: Session, /, room: int | None) -> None:
    """Work for every fleet that `blockferry batch` has begun, until Ctrl-C.

    Any number of them, on any number of hosts, share the fleets of one state; several
    hosts need one in PostgreSQL (--state postgresql://…), and the same clouds.yaml. When
    one dies or is cut off, the others go on with its volumes within a minute.
    """
    from blockferry_controller.cli.attempt import stopped_by_signals
    from blockferry_controller.cli.fleet_file import now
    from blockferry_controller.cli.fleets import of_fleets
    from blockferry_controller.fleet.worker import Worker
    from blockferry_controller.ui.display import display

    with session.store() as store, display(session.output, sys.stderr) as listener:
        told = of_fleets(session, listener, lambda own: own in worker.fleets)
        worker = Worker(store, session.migrations_in(store, told), told, now=now, room=room)
        if session.output != "json":
            click.echo("blockferry: working; Ctrl-C stops in order", err=True)
        with stopped_by_signals(worker.interrupt, quiet=session.output == "json"):
            worker.serve()
