"""`blockferry batch FLEET.yaml`: move many volumes, or go on with it."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from blockferry.errors import PreconditionError
from blockferry_controller.cli.options import common
from blockferry_controller.cli.session import Session

if TYPE_CHECKING:
    from blockferry_controller.engine.fleet_records import FleetRecord
    from blockferry_controller.engine.state import StateStore
    from blockferry_controller.fleet.drift import Drift
    from blockferry_controller.fleet.plan import Plan

_HOOKS = "hooks"
"""The one key that may change while a fleet is on its way: it says nothing of volumes."""


@click.command(name="batch")
@click.argument("file", type=click.Path(path_type=Path))
@click.option(
    "--allow-incomplete",
    is_flag=True,
    envvar="BLOCKFERRY_ALLOW_INCOMPLETE",
    show_envvar=True,
    help="Begin although volumes are refused, missing, or not as the plan says.",
)
@common()
@click.pass_obj
def command(session: Session, /, file: Path, *, allow_incomplete: bool) -> None:
    """Move all volumes of FILE, a fleet file or a plan made of one.

    Run it again with the same FILE to go on: after Ctrl-C, after a crash, after
    what stopped it was mended. Exits with 3 when volumes failed.
    """
    from blockferry_controller.cli.attempt import stopped_by_signals
    from blockferry_controller.cli.fleet_file import now
    from blockferry_controller.cli.fleets import of_fleets
    from blockferry_controller.fleet.worker import Worker
    from blockferry_controller.ui import fleet_state, table
    from blockferry_controller.ui.display import display

    with session.store() as store, display(session.output, sys.stderr) as listener:
        record = _known(session, store, file, allow_incomplete=allow_incomplete)
        told = of_fleets(session, listener, lambda own: own == record.id)
        worker = Worker(store, session.migrations_in(store, told), told, now=now)
        try:
            with stopped_by_signals(worker.interrupt, quiet=session.output == "json"):
                worker.run(record.id)
        finally:
            session.document = fleet_state.document(
                store.fleets.get(record.id),
                store.pairs.of(record.id),
                store.fleets.items(record.id),
            )
            session.hint = _hint(store, record.id, file)
        table.write_line(fleet_state.render(session.document), session.document, session.output)


def _known(
    session: Session, store: "StateStore", path: Path, *, allow_incomplete: bool
) -> "FleetRecord":
    """The fleet of the file: known already, or made now.

    Raises:
        PreconditionError: FLEET_CHANGED, FLEET_ENDED, PLAN_DRIFTED, PLAN_HAS_PROBLEMS,
            HOOK_UNUSABLE.
    """
    from blockferry_controller.cli.fleet_file import fleet_and_document, now, planned, settings_of
    from blockferry_controller.fleet.founding import found
    from blockferry_controller.fleet.hooks.sending import check

    fleet, document = fleet_and_document(path)
    known = store.fleets.find(fleet.name)
    if known is not None:
        _refuse_another(known, document, path)
        if known.document.get(_HOOKS) == document.get(_HOOKS):
            return known
        check(fleet.hooks)
        store.fleets.describe(known.id, document, [hook.name for hook in fleet.hooks])
        return store.fleets.get(known.id)
    check(fleet.hooks)
    plan, changes = planned(session, store, path, now)
    _refuse_incomplete(plan, changes, allow=allow_incomplete)
    return found(store.fleets, plan, settings_of(session, plan.fleet))


def _refuse_another(known: "FleetRecord", document: dict[str, Any], path: Path) -> None:
    if known.state == "CANCELLED":
        raise PreconditionError(
            "FLEET_ENDED",
            f"fleet {known.id} was cancelled; give the file another name under `fleet` to begin "
            "a new one",
            fleet=known.id,
        )
    changed = sorted(
        key
        for key in {*known.document, *document} - {_HOOKS}
        if known.document.get(key) != document.get(key)
    )
    if changed:
        raise PreconditionError(
            "FLEET_CHANGED",
            f"{path} is not the file that fleet {known.id} was begun with: {', '.join(changed)} "
            "differ; take the former file, change a running fleet with `blockferry set`, or give "
            "it another name under `fleet` to begin a new one",
            fleet=known.id,
        )


def _refuse_incomplete(plan: "Plan", changes: "tuple[Drift, ...]", *, allow: bool) -> None:
    from blockferry_controller.cli.plan import problem

    refused = sum(bool(item.problems) and not item.skip for item in plan.items)
    if plan.problems:
        raise problem(refused, plan.problems, (), [])
    if allow or not (refused or plan.missing or changes):
        return
    error = problem(refused, (), plan.missing, [str(one) for one in changes])
    raise PreconditionError(
        error.reason,
        f"{error.message}; `blockferry plan` shows all of it, --allow-incomplete begins all the "
        "same",
        **error.metadata,
    )


def _hint(store: "StateStore", fleet_id: str, path: Path) -> str:
    record = store.fleets.get(fleet_id)
    over = record.state in {"SUCCEEDED", "CANCELLED", "FAILED"}
    return "" if over else f"go on with: blockferry batch {path}"
