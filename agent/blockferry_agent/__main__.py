"""`blockferry-agent serve --config FILE`, and the server whose forks do the same."""

import argparse
import logging
import os
import signal
import sys
from pathlib import Path
from types import FrameType
from typing import NoReturn

from blockferry import __version__
from blockferry.errors import BlockferryError, InternalError
from blockferry.program import run
from blockferry_agent.config import load_config
from blockferry_agent.fork_server import await_fork
from blockferry_agent.memory import keep_freed_blocks
from blockferry_agent.scheduling import take_whole_turns

_log = logging.getLogger(__name__)


def main(arguments: list[str] | None = None) -> int:
    """Run the command; return the exit code of the error table."""
    options = _parser().parse_args(arguments)
    logging.basicConfig(
        level=logging.DEBUG if options.verbose else logging.INFO,
        stream=sys.stderr,
        format="%(asctime)s %(levelname)s %(name)s: %(message)s",
    )
    # Everything the agent writes is for its own user only.
    os.umask(0o077)
    keep_freed_blocks()
    take_whole_turns()
    try:
        config = options.config if options.command == "serve" else await_fork()
        return _serve(config) if config is not None else 0
    except BlockferryError as error:
        _log.error("%s: %s", error.reason, error.message)
        return error.meaning.exit_code
    except Exception as error:  # noqa: BLE001 - no traceback reaches a user
        _log.debug("the agent broke", exc_info=True)
        _log.critical("the agent broke: %r", error)
        return InternalError.meaning.exit_code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="blockferry-agent",
        description="Reads or writes one end of a migration.",
    )
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(dest="command", required=True)
    serve = commands.add_parser("serve", help="serve the controller and the paired agent")
    serve.add_argument("--config", required=True, type=Path, metavar="FILE")
    commands.add_parser("fork-server", help="make agents that serve, as orders come in")
    for command in commands.choices.values():
        command.add_argument("-v", "--verbose", action="store_true")
    return parser


def _serve(config_file: Path) -> int:
    # Not sooner: gRPC and all else is loaded under the settings made until here.
    from blockferry_agent.server import Agent  # noqa: PLC0415

    agent = Agent(load_config(config_file))
    caught: list[int] = []

    def on_signal(number: int, _: FrameType | None) -> None:
        caught.append(number)
        agent.stop()

    signal.signal(signal.SIGTERM, on_signal)
    signal.signal(signal.SIGINT, on_signal)
    agent.run()
    return 130 if signal.SIGINT in caught else 0


def program() -> NoReturn:
    """The command `blockferry-agent`."""
    run(main)


if __name__ == "__main__":
    program()
