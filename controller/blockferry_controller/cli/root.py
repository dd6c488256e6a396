"""The command `blockferry`: names its commands, loads only the one that runs."""

import difflib
import importlib
from typing import Final

import click

from blockferry import __version__
from blockferry_controller.cli.options import common

COMMANDS: Final = {
    "migrate": "Move one volume from cloud to cloud.",
    "copy": "Copy a file or block device on this machine, the same way.",
    "list": "All migrations, or fleets.",
    "show": "One migration in detail.",
    "history": "What has happened, newest first.",
    "watch": "Follow a running migration.",
    "pause": "Have a running migration hold, without losing anything.",
    "resume": "Go on with a migration that stopped or was paused.",
    "set": "Change the bandwidth limit of a migration.",
    "cancel": "Stop a migration for good and remove what it made.",
    "cleanup": "Remove what ended migrations left behind.",
    "report": "What was moved, how long it took, what it proved.",
    "digest": "The root digest of a file or block device.",
    "doctor": "What works here and what does not.",
    "wheels": "Serve what instances install, where no package index is reached.",
    "plan": "What a fleet would do, on a calendar.",
    "fleet-schema": "The JSON Schema of fleet files, for editors.",
    "batch": "Move many volumes, or go on with it.",
    "approve": "Let a wave of a fleet begin.",
    "retry": "Try again what failed in a fleet.",
    "skip": "Leave volumes of a fleet out.",
    "worker": "Work for all fleets of a state, beside others that do.",
}
"""Each is `command` in the module of its name."""


def _module(name: str) -> str:
    return name.replace("-", "_")


class LazyGroup(click.Group):
    """Commands are imported when they are asked for: sqlalchemy alone takes 0.3 s."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """In the order of COMMANDS."""
        del ctx
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import one command."""
        del ctx
        if cmd_name not in COMMANDS:
            return None
        package = "blockferry_controller.cli"
        command = importlib.import_module(f"{package}.{_module(cmd_name)}").command
        assert isinstance(command, click.Command)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Name the nearest command when there is none of that name."""
        name = args[0]
        if name not in COMMANDS and not name.startswith("-"):
            nearest = difflib.get_close_matches(name, COMMANDS, n=1)
            hint = f"did you mean {nearest[0]}?" if nearest else "see blockferry --help"
            ctx.fail(f"there is no command {name!r}; {hint}")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the commands without importing them."""
        del ctx
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="blockferry", message="%(prog)s %(version)s")
@common()
def blockferry() -> None:
    """Move block-storage volumes between independent OpenStack clouds.

    Results go to standard output, everything else to standard error. Clouds are
    named as in clouds.yaml. Every option is also an environment variable.
    """
