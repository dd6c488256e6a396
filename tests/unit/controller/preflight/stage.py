"""Two clouds in memory and a migration between them, for checks to look at."""

from dataclasses import dataclass, field
from typing import Any

from msgspec.structs import replace

from blockferry.identity import Role
from blockferry_controller.agents.port import Agent
from blockferry_controller.engine.state import StateStore
from blockferry_controller.events import Event, Noted
from blockferry_controller.migration.context import Context, Side
from blockferry_controller.migration.preflight import BEFORE
from blockferry_controller.migration.preflight.check import Check, enforce, examine
from blockferry_controller.spec import Endpoint, Kind, Placement, Spec
from tests.fakes.cloud import MemoryCloud

SPEC = Spec(Kind.MIGRATE, Endpoint("east", "data"), Endpoint("west"))


@dataclass
class Stage:
    """What a test sets up: clouds, spec; and what it sees: events, checks."""

    store: StateStore
    east: MemoryCloud = field(default_factory=lambda: MemoryCloud("east"))
    west: MemoryCloud = field(default_factory=lambda: MemoryCloud("west"))
    spec: Spec = SPEC
    events: list[Event] = field(default_factory=list)

    def ask(self, **changes: object) -> None:
        """Change the spec."""
        self.spec = replace(self.spec, **changes)

    def place(self, **changes: Any) -> None:
        """Change what the instances of both sides are made of."""
        placed = Placement(**changes)
        self.ask(
            source=replace(self.spec.source, placement=placed),
            destination=replace(self.spec.destination, placement=placed),
        )

    def context(self) -> Context:
        return Context(
            migration_id="m-1",
            epoch=1,
            spec=self.spec,
            source=Side(Role.SOURCE, self.east, self.spec.source),
            destination=Side(Role.SINK, self.west, self.spec.destination),
            store=self.store,
            listener=self.events.append,
            dial=_no_agents,
        )

    def checks(self) -> dict[str, Check]:
        """Everything that `--dry-run` would show, by name."""
        return {check.name: check for check in examine(BEFORE, self.context())}

    def enforce(self) -> None:
        """As a migration does."""
        enforce(BEFORE, self.context())

    @property
    def warnings(self) -> list[str]:
        return [e.message for e in self.events if isinstance(e, Noted) and e.level == "warning"]


def _no_agents(*_arguments: object, **_options: object) -> Agent:
    raise AssertionError("a check before boot wants no agent")
