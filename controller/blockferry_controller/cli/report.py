"""`blockferry report ID`: what is left to show when a migration has ended."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from blockferry.errors import BlockferryError, IntegrityError, NotFoundError, UsageError
from blockferry_controller.cli.options import FORMATS, common, migration_if_any
from blockferry_controller.cli.session import Session

if TYPE_CHECKING:
    from blockferry_controller.report.fleet import Form


@click.command(name="report")
@migration_if_any
@click.option(
    "--check",
    "file",
    type=click.Path(path_type=Path),
    metavar="FILE",
    envvar="BLOCKFERRY_CHECK",
    show_envvar=True,
    help="Check a report in JSON instead: whether it is as it was signed.",
)
@click.option(
    "--authority",
    metavar="sha256:HEX",
    envvar="BLOCKFERRY_AUTHORITY",
    show_envvar=True,
    help="With --check: who must have signed it.  [whom this machine knows, if it does]",
)
@common(("md", "html", "csv", *FORMATS))
@click.pass_obj
def command(
    session: Session, /, migration: str | None, file: Path | None, authority: str | None
) -> None:
    """What was moved, how long each step took, and what was proven.

    Markdown unless --output says otherwise; in JSON it is signed when the migration
    succeeded. ID may be its beginning, as long as it is unique, or a fleet's name:
    its report also comes as html and csv.
    """
    if (migration is None) == (file is None):
        raise UsageError("REPORT_OF_WHAT", "give either the ID of a migration or --check FILE")
    if file is not None:
        _check(session, file, authority)
    elif migration is not None and not _show_fleet(session, migration):
        _show(session, migration)


def _show_fleet(session: Session, fleet: str) -> bool:
    """Write the report of the fleet of that name; False when there is none."""
    from blockferry_controller.report import fleet as report
    from blockferry_controller.report.fleet_hooks import hooks_of

    with session.store() as store:
        record = store.fleets.find(fleet)
        if record is None:
            return False
        hooks = hooks_of(store.deliveries, record)
        form = _form(session.output)
        report.write(sys.stdout, record, store.outcomes.of(fleet), hooks, form)
    return True


def _form(output: str | None) -> "Form":
    from blockferry_controller.ui.stream import DocumentStream
    from blockferry_controller.ui.table import STRUCTURED

    if output in STRUCTURED:
        return DocumentStream(output, "volumes")
    if output == "html":
        from blockferry_controller.report.fleet_html import Html

        return Html()
    if output == "csv":
        from blockferry_controller.report.fleet_csv import Csv

        return Csv()
    from blockferry_controller.report.fleet_markdown import Markdown

    return Markdown()


def _show(session: Session, migration: str) -> None:
    from blockferry_controller.migration.ending import seal_and_destroy_keys
    from blockferry_controller.report import document, markdown
    from blockferry_controller.report.seal import seal
    from blockferry_controller.ui import table

    if session.output in {"html", "csv"}:
        raise UsageError(
            "INVALID_OUTPUT",
            f"only a fleet's report comes as {session.output}; {migration} is none",
        )
    with session.store() as store:
        record = store.get(migration)
        if record.state == "SUCCEEDED":
            # Its controller died between the end and the signature.
            seal_and_destroy_keys(store, record.id, seal)
        report = store.kept_report(record.id) or document.build(record)
    if session.output in {None, "md"}:
        click.echo(markdown.render(report), nl=False)
    else:
        table.write_record(report, session.output)


def _check(session: Session, file: Path, authority: str | None) -> None:
    from blockferry_controller.report import signature
    from blockferry_controller.ui import table

    try:
        report = signature.parse(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise NotFoundError("REPORT_NOT_FOUND", f"cannot read {file}: {error.strerror}") from None
    except (ValueError, RecursionError) as error:
        raise _altered(file, (f"it is not JSON: {error}",)) from None
    verdict = signature.check(report)
    expected = authority or _known_authority(session, report)
    problems = verdict.problems
    if not problems and expected and expected != verdict.authority:
        problems = (f"it was signed by {verdict.authority}, not by {expected}",)
    document: dict[str, Any] = {
        "file": str(file),
        "intact": not problems,
        "id": report.get("id") if isinstance(report, dict) else None,
        "signed_at": verdict.signed_at,
        "authority": verdict.authority,
        "authority_known": bool(expected) and not problems,
        "problems": list(problems),
    }
    if problems:
        session.document = document
        raise _altered(file, problems)
    if not expected:
        click.echo(
            "blockferry: this machine does not know the migration: compare the authority with "
            "the one that its own machine shows, or name it with --authority",
            err=True,
        )
    table.write_record(document, session.output if session.output != "md" else None)


def _known_authority(session: Session, report: object) -> str:
    """The authority that this machine's state has for the migration; empty when it knows none."""
    named = report.get("id") if isinstance(report, dict) else None
    if not isinstance(named, str):
        return ""
    with session.store() as store:
        try:
            record = store.get(named)
        except BlockferryError:
            return ""
    return str(record.facts.get("authority", "")) if record.id == named else ""


def _altered(file: Path, problems: tuple[str, ...]) -> IntegrityError:
    return IntegrityError(
        "REPORT_ALTERED",
        f"the report {file} is not what was signed: " + "; ".join(problems),
        file=file,
    )
