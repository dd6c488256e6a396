"""`blockferry digest PATH`: the manifest root, to compare by hand."""

from pathlib import Path

import click

from blockferry_controller.cli.options import common
from blockferry_controller.cli.session import Session
from blockferry_controller.clouds.local.fork_server import FORK_SERVER


@click.command(name="digest")
@click.argument("path", type=click.Path(path_type=Path))
@common()
@click.pass_obj
def command(session: Session, path: Path) -> None:
    """Print the root digest of a file or block device as blake3:<hex>.

    Equal contents of equal size have equal digests, and it is the `digest` that
    a migration of PATH reports.
    """
    # First: its agent loads while we do.
    FORK_SERVER.start()

    from blockferry_controller.cli.dry_run import unheard
    from blockferry_controller.ui import table

    with session.migrations(unheard) as migrations:
        digest = migrations.digest(str(path.absolute()))
    table.write_line(digest, {"path": str(path), "digest": digest}, session.output)
