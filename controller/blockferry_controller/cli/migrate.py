"""`blockferry migrate VOLUME --from CLOUD --to CLOUD`."""

from typing import Any, Final

import click

from blockferry.limits import GIB
from blockferry_controller.cli.options import Chosen, Parsed, common, placement, transfer
from blockferry_controller.cli.session import Session
from blockferry_controller.notation import parse_controller_address, parse_duration
from blockferry_controller.spec import Endpoint, Kind, Spec

_GIB_MAX: Final = (1 << 63) // GIB - 1


@click.command(name="migrate")
@click.argument("volume")
@click.option(
    "--from",
    "from_cloud",
    metavar="CLOUD",
    required=True,
    envvar="BLOCKFERRY_FROM",
    show_envvar=True,
    help="Where VOLUME is, as named in clouds.yaml.",
)
@click.option(
    "--to",
    "to_cloud",
    metavar="CLOUD",
    required=True,
    envvar="BLOCKFERRY_TO",
    show_envvar=True,
    help="Where it goes.",
)
@click.option(
    "--to-type",
    metavar="T",
    envvar="BLOCKFERRY_TO_TYPE",
    show_envvar=True,
    help="Volume type there.  [the same name, else the cloud's default]",
)
@click.option(
    "--to-az",
    metavar="Z",
    envvar="BLOCKFERRY_TO_AZ",
    show_envvar=True,
    help="Availability zone there.  [the same name, else the cloud's default]",
)
@click.option(
    "--to-name",
    metavar="N",
    envvar="BLOCKFERRY_TO_NAME",
    show_envvar=True,
    help="Volume name there.  [the same]",
)
@click.option(
    "--to-size",
    type=click.IntRange(1, _GIB_MAX),
    metavar="GIB",
    envvar="BLOCKFERRY_TO_SIZE",
    show_envvar=True,
    help="Size there in GiB, not below the source's.  [the same]",
)
@click.option(
    "--controller-address",
    type=Parsed("address", parse_controller_address),
    metavar="IP[:PORT]",
    envvar="BLOCKFERRY_CONTROLLER_ADDRESS",
    show_envvar=True,
    help="This machine as the instances see it, behind NAT; with PORT it listens there for those "
    "it cannot reach.  [as it is routed]",
)
@click.option(
    "--allow-relay",
    is_flag=True,
    envvar="BLOCKFERRY_ALLOW_RELAY",
    show_envvar=True,
    help="Carry the bytes through this machine when the instances do not reach each other.",
)
@click.option(
    "--skip-check",
    "skip_checks",
    multiple=True,
    metavar="NAME",
    envvar="BLOCKFERRY_SKIP_CHECK",
    show_envvar=True,
    help="Do not make this check of the preflight, by its name in --dry-run; may be repeated.",
)
@click.option(
    "--allow-downgrade",
    is_flag=True,
    envvar="BLOCKFERRY_ALLOW_DOWNGRADE",
    show_envvar=True,
    help="Go on when the volume there is not encrypted, or multiattach, and the source is.",
)
@click.option(
    "--max-duration",
    type=Parsed("duration", parse_duration),
    metavar="TIME",
    envvar="BLOCKFERRY_MAX_DURATION",
    show_envvar=True,
    help="Refuse when copy and proof are predicted to take longer, for example 2h or 90m.",
)
@click.option(
    "--dry-run",
    is_flag=True,
    envvar="BLOCKFERRY_DRY_RUN",
    show_envvar=True,
    help="Check everything that can be checked, say what would be done, change nothing.",
)
@placement
@transfer
@common()
@click.pass_obj
def command(
    session: Session,
    /,
    volume: str,
    *,
    from_cloud: str,
    to_cloud: str,
    to_type: str | None,
    to_az: str | None,
    to_name: str | None,
    to_size: int | None,
    controller_address: str | None,
    allow_relay: bool,
    skip_checks: tuple[str, ...],
    allow_downgrade: bool,
    max_duration: int | None,
    dry_run: bool,
    **options: Any,
) -> None:
    """Move VOLUME, an id or an unambiguous name, from one cloud to another.

    Boots a temp instance in each cloud, sends the volume from one to the other,
    reads the copy back and compares, and removes the instances. The source
    volume must be detached and is only read.
    """
    chosen = Chosen(**options)
    renaming = session.config.renaming_for(to_cloud)
    spec = Spec(
        kind=Kind.MIGRATE,
        source=Endpoint(from_cloud, volume, chosen.placement(session.config, from_cloud)),
        destination=Endpoint(to_cloud, to_name or "", chosen.placement(session.config, to_cloud)),
        transfer=chosen.transfer(session.config),
        to_type=to_type or "",
        to_availability_zone=to_az or "",
        to_size_bytes=(to_size or 0) * GIB,
        controller_address=controller_address or session.config.controller_address,
        types=dict(renaming.types),
        zones=dict(renaming.zones),
        allow_relay=allow_relay,
        skip_checks=_skippable(skip_checks),
        allow_downgrade=allow_downgrade,
        max_duration_seconds=max_duration or 0,
    )
    if dry_run:
        from blockferry_controller.cli import dry_run as rehearsal

        rehearsal.show(session, spec)
    else:
        from blockferry_controller.cli import attempt

        attempt.begin(session, spec)


def _skippable(names: tuple[str, ...]) -> tuple[str, ...]:
    """Checked here, so that a misspelt name stops nothing but this command."""
    if not names:
        return ()
    from blockferry_controller.migration.preflight import skippable

    return skippable(names)
