"""`blockferry plan FLEET.yaml`: what a batch would do, and nothing changed."""

import json
from pathlib import Path
from typing import Any

import click

from blockferry.errors import ForbiddenError, PreconditionError
from blockferry_controller.cli.options import common
from blockferry_controller.cli.session import Session


@click.command(name="plan")
@click.argument("file", type=click.Path(path_type=Path))
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    metavar="PLAN.json",
    envvar="BLOCKFERRY_OUT",
    show_envvar=True,
    help="Also write the plan there, to be reviewed, edited and run by `blockferry batch`.",
)
@common()
@click.pass_obj
def command(session: Session, /, file: Path, out: Path | None) -> None:
    """Say what `batch` would do with every volume; change nothing.

    FILE is a fleet file, or a plan that was made of one: then it is checked
    again, and what has changed since is told. Asks both clouds, and lays the
    volumes on a calendar under all limits, windows and quotas.
    """
    from blockferry_controller.cli.fleet_file import now, planned
    from blockferry_controller.fleet.plan import to_json
    from blockferry_controller.ui import fleet_plan, table

    with session.store() as store:
        plan, changes = planned(session, store, file, now)
    document = to_json(plan)
    if out is not None:
        _write(out, document)
    document["drift"] = [str(one) for one in changes]
    text = fleet_plan.render(document, plan.fleet.windows.time_zone)
    refused = document["totals"]["refused"]
    if not refused and not plan.problems and not plan.missing and not changes:
        table.write_line(text, document, session.output)
        return
    session.document = document
    if session.output not in table.STRUCTURED:
        click.echo(text)
    raise problem(refused, plan.problems, plan.missing, [str(one) for one in changes])


def _write(path: Path, document: dict[str, Any]) -> None:
    """Written beside, then renamed: a half plan is never run."""
    beside = path.with_name(f".{path.name}.new")
    try:
        beside.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
        beside.replace(path)
    except OSError as error:
        raise ForbiddenError("PLAN_NOT_WRITTEN", f"cannot write {path}: {error}") from error


def problem(
    refused: int, problems: tuple[str, ...], missing: tuple[str, ...], changes: list[str]
) -> PreconditionError:
    """The error for a plan that cannot be carried out as it is."""
    if changes:
        return PreconditionError(
            "PLAN_DRIFTED",
            f"{len(changes)} things have changed since the plan was made, the first: {changes[0]}; "
            "make a new plan, or edit this one",
            changes=len(changes),
        )
    first = (*problems, *missing)
    said = f"{first[0]}" if first else f"{refused} volumes would be refused, as listed"
    return PreconditionError(
        "PLAN_HAS_PROBLEMS", f"the plan cannot be carried out whole: {said}", refused=refused
    )
