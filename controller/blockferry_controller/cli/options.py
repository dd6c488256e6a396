"""Options that several commands take, each also an environment variable.

Rules:
* Common options stand before or after the command's name. What is nearer to the
  command's name wins, and the environment never beats the command line.
* A value that cannot be meant is refused here, with exit code 2, before
  anything is opened or asked.
"""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, TypeVar

import click
from click.core import ParameterSource
from msgspec import Struct

from blockferry.errors import NotFoundError, UsageError
from blockferry.limits import MAX_CHANNELS
from blockferry_controller.cli.session import Session
from blockferry_controller.config import Config
from blockferry_controller.notation import parse_compression, parse_rate
from blockferry_controller.spec import FLOATING_IP, Placement, Transfer, Verify

FORMATS: Final = ("table", "json", "yaml")

_Decorated = TypeVar("_Decorated", bound=Callable[..., Any])

_REFERENCE = re.compile(r"[a-z0-9-]{1,40}")
_URL = re.compile(r"[a-z][a-z0-9]*(\+[a-z0-9_]+)?:///?.+", re.IGNORECASE)


class Parsed(click.ParamType[Any]):
    """A value read by one of our parsers; its UsageError becomes click's."""

    def __init__(self, name: str, parse: Callable[[str], object]) -> None:
        self.name = name
        self._parse = parse

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> object:
        """See click.ParamType."""
        if not isinstance(value, str):
            return value
        try:
            return self._parse(value)
        except UsageError as error:
            self.fail(error.message, param, ctx)


def _parse_state(text: str) -> str:
    if _URL.fullmatch(text) is None:
        # What has a colon was meant as a URL.
        path = "/var/lib/blockferry/state.db" if ":" in text else Path(text).absolute()
        raise UsageError(
            "INVALID_STATE",
            f"{text!r} is not an SQLAlchemy URL; for a file write sqlite:///{path}",
            value=text,
        )
    return text


def _parse_reference(text: str) -> str:
    """An empty one would be the beginning of every id."""
    if _REFERENCE.fullmatch(text) is None:
        raise NotFoundError(
            "MIGRATION_NOT_FOUND",
            f"no migration {text!r}; `blockferry list` shows those there are",
            migration=text,
        )
    return text


def migration(command: _Decorated) -> _Decorated:
    """The argument ID: a migration's id or its beginning."""
    return click.argument("migration", metavar="ID", type=Parsed("id", _parse_reference))(command)


def migration_if_any(command: _Decorated) -> _Decorated:
    """The same, for a command that can do without."""
    kind = Parsed("id", _parse_reference)
    return click.argument("migration", metavar="[ID]", required=False, type=kind)(command)


def rows(for_people: int) -> Callable[[_Decorated], _Decorated]:
    """--limit: how many rows at most.

    Args:
        for_people: In a table, unless told; programs get all.
    """
    return click.option(
        "-n",
        "--limit",
        type=click.IntRange(0),
        metavar="N",
        # BLOCKFERRY_LIMIT is a rate.
        envvar="BLOCKFERRY_ROWS",
        show_envvar=True,
        help=f"At most so many; 0 is all.  [{for_people} in a table, all in json and yaml]",
    )


def common(formats: tuple[str, ...] = FORMATS) -> Callable[[_Decorated], _Decorated]:
    """--config, --state, --output and -v; they go into the Session, not to the command.

    Args:
        formats: What --output may be.
    """
    decorators = (
        click.option(
            "--config",
            "config_path",
            type=click.Path(path_type=Path),
            metavar="FILE",
            envvar="BLOCKFERRY_CONFIG",
            help="Configuration file; else blockferry/config.yaml in ~/.config.",
            **_kept(),
        ),
        click.option(
            "--state",
            "state_url",
            type=Parsed("url", _parse_state),
            metavar="URL",
            envvar="BLOCKFERRY_STATE",
            help="SQLAlchemy URL of the state; else an SQLite file in ~/.local/state.",
            **_kept(),
        ),
        click.option(
            "-o",
            "--output",
            type=click.Choice(formats),
            envvar="BLOCKFERRY_OUTPUT",
            help="How results are written to standard output.",
            **_kept(),
        ),
        click.option(
            "-v",
            "--verbose",
            "verbosity",
            count=True,
            envvar="BLOCKFERRY_VERBOSE",
            help="Say more; twice: also tracebacks.",
            **_kept(),
        ),
    )
    return _all(decorators)


def _kept() -> dict[str, Any]:
    return {"expose_value": False, "callback": _keep, "show_envvar": True}


def _keep(ctx: click.Context, param: click.Parameter, value: Any) -> None:
    """Store what was said in the Session, unless something stronger is there."""
    session = ctx.ensure_object(Session)
    source = ctx.get_parameter_source(str(param.name))
    if source is ParameterSource.DEFAULT or value is None:
        return
    before = getattr(session, str(param.name))
    if source is ParameterSource.ENVIRONMENT and before:
        return
    if param.name == "verbosity" and ctx.parent is not None:
        value += before
    setattr(session, str(param.name), value)


def transfer(command: _Decorated) -> _Decorated:
    """--compression, --channels, --limit, --verify."""
    return _all(
        (
            click.option(
                "--compression",
                type=Parsed("compression", parse_compression),
                metavar="auto|none|zstd:LEVEL",
                envvar="BLOCKFERRY_COMPRESSION",
                show_envvar=True,
                help="How bytes are compressed on the wire; LEVEL from -7 to 19.  [auto]",
            ),
            click.option(
                "--channels",
                type=click.IntRange(1, MAX_CHANNELS),
                metavar="N",
                envvar="BLOCKFERRY_CHANNELS",
                show_envvar=True,
                help=f"TCP connections between the agents, 1 to {MAX_CHANNELS}.  [they choose]",
            ),
            click.option(
                "--limit",
                type=Parsed("rate", parse_rate),
                metavar="RATE",
                envvar="BLOCKFERRY_LIMIT",
                show_envvar=True,
                help="Most bytes per second on the wire, for example 200MiB/s.  [none]",
            ),
            click.option(
                "--verify",
                type=click.Choice([way.value for way in Verify]),
                envvar="BLOCKFERRY_VERIFY",
                show_envvar=True,
                help="What is proven at the end: the destination read back from its medium, "
                "only what crossed the wire, or nothing.  [readback]",
            ),
        )
    )(command)


def placement(command: _Decorated) -> _Decorated:
    """--image, --flavor, --network and so on: for the instances of both clouds."""
    texts = {
        "image": ("I", "Image of the temp instances, by id or name.  [newest that fits]"),
        "flavor": ("F", "Flavor of the temp instances.  [smallest that fits]"),
        "network": ("N", "Network of the temp instances.  [the only one]"),
        "wheels": ("URL", "Package index, or directory listing, that instances install from."),
        "external-network": ("N", "Network that floating IPs are of.  [one that is routed]"),
    }
    ip_version = click.option(
        "--ip-version",
        type=click.Choice([4, 6]),
        envvar="BLOCKFERRY_IP_VERSION",
        show_envvar=True,
        help="Only family of the temp instances' addresses.  [all that their networks have]",
    )
    floating_ip = click.option(
        "--floating-ip",
        type=click.Choice(FLOATING_IP),
        envvar="BLOCKFERRY_FLOATING_IP",
        show_envvar=True,
        help="Whether the temp instances get one: when nothing else answers, or as said.  [auto]",
    )
    named = (
        click.option(
            f"--{name}",
            metavar=metavar,
            envvar=f"BLOCKFERRY_{name.upper().replace('-', '_')}",
            show_envvar=True,
            help=text,
        )
        for name, (metavar, text) in texts.items()
    )
    return _all((*named, ip_version, floating_ip))(command)


def _all(
    decorators: tuple[Callable[[Any], Any], ...],
) -> Callable[[_Decorated], _Decorated]:
    def decorate(command: _Decorated) -> _Decorated:
        for decorator in reversed(decorators):
            command = decorator(command)
        return command

    return decorate


class Chosen(Struct, frozen=True):
    """What the options of `transfer` and `placement` said; None or empty: nothing."""

    compression: str | None = None
    channels: int | None = None
    limit: int | None = None
    verify: str | None = None
    image: str | None = None
    flavor: str | None = None
    network: str | None = None
    wheels: str | None = None
    ip_version: int | None = None
    floating_ip: str | None = None
    external_network: str | None = None

    def transfer(self, config: Config) -> Transfer:
        """How bytes travel: options before configuration."""
        default = config.transfer
        return Transfer(
            compression=self.compression or default.compression,
            channels=self.channels or default.channels,
            limit_bytes_per_second=default.limit_bytes_per_second
            if self.limit is None
            else self.limit,
            verify=Verify(self.verify) if self.verify else default.verify,
        )

    def placement(self, config: Config, cloud: str) -> Placement:
        """What the instance in `cloud` is made of: options before configuration."""
        chosen = Placement(
            image=self.image or "",
            flavor=self.flavor or "",
            network=self.network or "",
            wheels=self.wheels or "",
            ip_version=self.ip_version or 0,
            floating_ip=self.floating_ip or "",
            external_network=self.external_network or "",
        )
        return config.placement_for(cloud, chosen)
