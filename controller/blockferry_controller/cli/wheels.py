"""`blockferry wheels serve DIR`: a wheelhouse where instances reach this machine."""

import signal
import sys
import threading
from pathlib import Path
from types import FrameType

import click

from blockferry_controller.cli.options import common
from blockferry_controller.cli.session import Session


@click.group(name="wheels")
@common()
def command() -> None:
    """Wheels for instances that cannot reach a package index."""


@command.command(name="serve")
@click.argument("directory", metavar="DIR", type=click.Path(path_type=Path))
@click.option(
    "--address",
    metavar="IP",
    envvar="BLOCKFERRY_ADDRESS",
    show_envvar=True,
    help="Address to listen on, as instances see it.  [the one of the default route]",
)
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=7480,
    envvar="BLOCKFERRY_PORT",
    show_envvar=True,
    show_default=True,
    help="TCP port; 0 for a free one.",
)
@common()
@click.pass_obj
def serve(session: Session, directory: Path, address: str | None, port: int) -> None:
    """Serve the wheels in DIR by plain HTTP until Ctrl-C.

    Prints the URL that `--wheels` takes. `make wheelhouse WHEELHOUSE=DIR` fills DIR.
    """
    from blockferry_controller.delivery.wheel_server import WheelServer, own_address
    from blockferry_controller.ui import table

    stop = threading.Event()

    def end(_number: int, _frame: FrameType | None) -> None:
        stop.set()

    with WheelServer(directory, address or own_address(), port) as server:
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, end)
        thread = threading.Thread(target=server.serve_forever, name="wheels")
        thread.start()
        try:
            table.write_line(server.url, {"url": server.url}, session.output)
            sys.stdout.flush()
            stop.wait()
        finally:
            server.shutdown()
            thread.join()
