"""`blockferry copy SRC DST`: through two real agents on this machine."""

from pathlib import Path
from typing import Any

import click

from blockferry_controller.cli.options import Chosen, common, transfer
from blockferry_controller.cli.session import LOCAL, Session
from blockferry_controller.clouds.local.fork_server import FORK_SERVER
from blockferry_controller.spec import Endpoint, Kind, Spec


@click.command(name="copy")
@click.argument("src", type=click.Path(path_type=Path))
@click.argument("dst", type=click.Path(path_type=Path))
@transfer
@click.option(
    "--profile",
    is_flag=True,
    envvar="BLOCKFERRY_PROFILE",
    show_envvar=True,
    help="Say at the end where the time went, and which stage held it up.",
)
@common()
@click.pass_obj
def command(session: Session, /, src: Path, dst: Path, profile: bool, **options: Any) -> None:
    """Copy SRC to DST: regular files or block devices of this machine.

    Two agents on the loopback interface do it, in the same way as between
    clouds. A missing DST is made with SRC's size; a larger one keeps its tail.
    """
    # First: its agents load while we do.
    FORK_SERVER.start()

    from blockferry_controller.cli import attempt

    spec = Spec(
        kind=Kind.COPY,
        # Symbolic links stay: /dev/disk/by-id/… means the same disk tomorrow.
        source=Endpoint(LOCAL, str(src.absolute())),
        destination=Endpoint(LOCAL, str(dst.absolute())),
        transfer=Chosen(**options).transfer(session.config),
    )
    attempt.begin(session, spec, profile=profile)
