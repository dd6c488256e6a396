"""`migrate --dry-run`: every check, the plan, and nothing changed."""

from typing import Any

from blockferry.errors import PreconditionError
from blockferry_controller.cli.session import Session
from blockferry_controller.events import Event
from blockferry_controller.spec import Spec
from blockferry_controller.ui import table

_COLUMNS = (("check", "name"), ("outcome", "outcome"), ("detail", "detail"))


def show(session: Session, spec: Spec) -> None:
    """Write the checks of `spec` to standard output.

    Raises:
        BlockferryError: the first failed check's own.
    """
    from blockferry_controller.migration.steps import STEPS

    with session.migrations(unheard) as migrations:
        checks = migrations.preflight(spec)
    rows: list[dict[str, Any]] = [
        {"name": check.name, "outcome": check.outcome.value, "detail": check.detail}
        for check in checks
    ]
    failed = [check for check in checks if check.outcome.value == "fail"]
    if failed:
        session.document = {"checks": rows}
        if session.output not in table.STRUCTURED:
            table.write_rows(rows, _COLUMNS, session.output, empty="")
        raise failed[0].error or PreconditionError(
            "PREFLIGHT_FAILED", f"{failed[0].name}: {failed[0].detail}", check=failed[0].name
        )
    steps = [step.name for step in STEPS]
    lines = f"{table.render_rows(rows, _COLUMNS)}\n\nThe steps would be: {', '.join(steps)}."
    document = {"checks": rows, "steps": steps, "spec": spec.to_json()}
    table.write_line(lines, document, session.output)


def unheard(event: Event) -> None:
    """Checks tell nothing on the way."""
