"""`blockferry doctor`: what works here and what does not."""

from functools import partial
from pathlib import Path
from typing import Any

import click

from blockferry.errors import PreconditionError
from blockferry_controller.cli.options import Chosen, common, placement
from blockferry_controller.cli.session import Session

_COLUMNS = (("check", "name"), ("outcome", "outcome"), ("detail", "detail"))


@click.command(name="doctor")
@click.option(
    "--cloud",
    "clouds",
    multiple=True,
    metavar="CLOUD",
    envvar="BLOCKFERRY_CLOUD",
    show_envvar=True,
    help="Also look at this cloud of clouds.yaml; may be repeated.",
)
@placement
@common()
@click.pass_obj
def command(session: Session, /, clouds: tuple[str, ...], **options: Any) -> None:
    """Check this machine and, with --cloud, whether migrations can run there.

    Changes nothing in any cloud. Exits 0 when nothing fails, else with the code
    of the first failure: 12 unless it has one of its own.
    """
    from blockferry_controller.doctor import cloud, machine
    from blockferry_controller.ui import table

    findings = [*machine.examine(session.url)]
    for name in clouds:
        wanted = Chosen(**options).placement(session.config, name)
        findings += cloud.examine(name, partial(session.cloud, Path()), wanted)
    rows = [
        {"name": found.name, "outcome": found.outcome, "detail": found.detail} for found in findings
    ]
    failed = [found for found in findings if found.outcome == "fail"]
    if not failed:
        table.write_line(table.render_rows(rows, _COLUMNS), {"checks": rows}, session.output)
        return
    session.document = {"checks": rows}
    if session.output not in table.STRUCTURED:
        click.echo(table.render_rows(rows, _COLUMNS))
    raise failed[0].error or PreconditionError(
        "DOCTOR_FAILED", f"{failed[0].name}: {failed[0].detail}", check=failed[0].name
    )
