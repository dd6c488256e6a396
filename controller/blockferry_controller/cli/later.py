"""Commands whose names are taken and whose work comes with a later version."""

from typing import Final

import click

from blockferry.errors import UsageError
from blockferry_controller.cli.root import COMMANDS

_INSTEAD: Final = {
    "worker": "until then `blockferry migrate` and `blockferry resume ID` do the work themselves",
}


def command(name: str) -> click.Command:
    """A command that takes any arguments and says what to use instead.

    Args:
        name: One of those in `_INSTEAD`.
    """

    @click.command(
        name,
        short_help=COMMANDS[name],
        context_settings={"ignore_unknown_options": True, "allow_extra_args": True},
    )
    def later() -> None:
        raise UsageError(
            "NOT_YET",
            f"`blockferry {name}` comes with a later version; {_INSTEAD[name]}",
            command=name,
        )

    later.help = f"{COMMANDS[name]}\n\n{_INSTEAD[name].capitalize()}."
    return later
