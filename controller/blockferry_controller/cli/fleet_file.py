"""What `plan` and `batch` share: the file read, both clouds asked, a plan made of it."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

from blockferry.errors import ForbiddenError, NotFoundError, UsageError
from blockferry_controller.cli.session import Session

if TYPE_CHECKING:
    from blockferry_controller.engine.state import StateStore
    from blockferry_controller.fleet.drift import Drift
    from blockferry_controller.fleet.plan import Plan
    from blockferry_controller.fleet.planning import Planner, Settings
    from blockferry_controller.fleet.spec import Fleet


def read_text(path: Path) -> str:
    """The text of a fleet file or plan.

    Raises:
        NotFoundError: FLEET_NOT_FOUND.
        ForbiddenError: FLEET_UNREADABLE.
        UsageError: FLEET_INVALID, it is no text.
    """
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise NotFoundError("FLEET_NOT_FOUND", f"there is no file {path}", file=path) from None
    except PermissionError:
        raise ForbiddenError("FLEET_UNREADABLE", f"may not read {path}", file=path) from None
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError("FLEET_INVALID", f"cannot read {path}: {error}", file=path) from None


def fleet_and_document(path: Path) -> "tuple[Fleet, dict[str, Any]]":
    """The fleet that a file, or the plan in it, describes, and its file as plain types."""
    from blockferry_controller.fleet.grammar import fleet_of
    from blockferry_controller.fleet.place import parse, plain
    from blockferry_controller.fleet.plan import is_plan, plan_of

    text, name = read_text(path), str(path)
    document = parse(text, name)
    if is_plan(document):
        plan = plan_of(document, name)
        return plan.fleet, dict(plan.document)
    return fleet_of(document, name), plain(document)


def planned(
    session: Session, store: "StateStore", path: Path, clock: Callable[[], datetime]
) -> "tuple[Plan, tuple[Drift, ...]]":
    """The plan of a fleet file, or a plan checked again and what has changed since."""
    from blockferry_controller.fleet.drift import drift
    from blockferry_controller.fleet.grammar import fleet_of
    from blockferry_controller.fleet.place import parse, plain
    from blockferry_controller.fleet.plan import is_plan, plan_of

    text, name = read_text(path), str(path)
    document = parse(text, name)
    if is_plan(document):
        before = plan_of(document, name)
        with planner(session, store, before.fleet) as made:
            changes = drift(before, made.source.list_volumes())
            return made.check(before, clock()), changes
    fleet = fleet_of(document, name)
    with planner(session, store, fleet) as made:
        return made.make(fleet, plain(document), clock()), ()


@contextmanager
def planner(session: Session, store: "StateStore", fleet: "Fleet") -> "Iterator[Planner]":
    """What makes plans of `fleet`, its clouds open until the block ends."""
    from blockferry_controller.fleet.pace import measured
    from blockferry_controller.fleet.planning import Planner
    from blockferry_controller.fleet.snapshot import Snapshot

    pace = measured(store.listing.migrations(), fleet.source, fleet.destination)
    with ExitStack() as stack:
        source, destination = (
            stack.enter_context(closing(session.cloud(store.directory, name)))
            for name in (fleet.source, fleet.destination)
        )
        yield Planner(
            Snapshot(source), Snapshot(destination), settings_of(session, fleet), store, pace
        )


def settings_of(session: Session, fleet: "Fleet") -> "Settings":
    """What the configuration says for `fleet`."""
    from blockferry_controller.fleet.planning import Settings
    from blockferry_controller.spec import Placement

    config = session.config
    renaming = config.renaming_for(fleet.destination)
    return Settings(
        source=config.placement_for(fleet.source, Placement()),
        destination=config.placement_for(fleet.destination, Placement()),
        transfer=config.transfer,
        controller_address=config.controller_address,
        types=dict(renaming.types),
        zones=dict(renaming.zones),
    )


def now() -> datetime:
    """The time, in UTC."""
    return datetime.now(timezone.utc)
