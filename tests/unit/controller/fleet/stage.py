"""Two clouds in memory and a fleet between them."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pytest

from blockferry.limits import GIB
from blockferry_controller.__main__ import main
from blockferry_controller.cli.session import Session
from blockferry_controller.clouds.port import Cloud
from blockferry_controller.engine.state import StateStore
from blockferry_controller.fleet.grammar import read_fleet
from blockferry_controller.fleet.pace import Pace
from blockferry_controller.fleet.plan import Item, Plan
from blockferry_controller.fleet.planning import Planner, Settings
from blockferry_controller.fleet.snapshot import Snapshot
from tests.fakes.cloud import MemoryCloud

NOW = datetime(2026, 11, 20, 12, tzinfo=timezone.utc)
ROOMY = {
    "instances": 100, "cores": 200, "ram_bytes": 500 * GIB, "volumes": 1000, "gigabytes": 100_000,
    "ports": 500, "security_groups": 100, "security_group_rules": 1000,
}  # fmt: skip


@dataclass
class Stage:
    """What a test sets up, and the commands it runs."""

    directory: Path
    store: StateStore
    east: MemoryCloud = field(default_factory=lambda: MemoryCloud("east", dict(ROOMY)))
    west: MemoryCloud = field(default_factory=lambda: MemoryCloud("west", dict(ROOMY)))
    keys: dict[str, Any] = field(default_factory=dict)

    @property
    def document(self) -> dict[str, Any]:
        """The fleet file; `keys` are added to the least there can be."""
        least = {"fleet": "shop", "from": "east", "to": "west", "select": {"names": "*"}}
        return {**least, **self.keys}

    def connect(self, directory: Path, name: str) -> Cloud:
        """What a Session connects by."""
        del directory
        return {"east": self.east, "west": self.west}[name]

    def planner(self, pace: Pace | None = None) -> Planner:
        clouds = Snapshot(self.east), Snapshot(self.west)
        return Planner(*clouds, Settings(), self.store, pace or Pace())

    def plan(self, pace: Pace | None = None) -> Plan:
        fleet = read_fleet(json.dumps(self.document), "fleet.yaml")
        return self.planner(pace).make(fleet, self.document, NOW)

    def item(self, name: str) -> Item:
        return next(item for item in self.plan().items if item.volume.name == name)

    def write(self, name: str = "fleet.yaml") -> Path:
        path = self.directory / name
        path.write_text(json.dumps(self.document), encoding="utf-8")
        return path

    def run(self, *arguments: object, **session: Any) -> int:
        """A command, as `blockferry` runs it."""
        given = ["--state", self.store.url, *map(str, arguments)]
        return main(given, Session(connect=self.connect, **session))


@contextmanager
def staged(directory: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Stage]:
    """A stage with an empty state and configuration of its own."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(directory))
    store = StateStore.open(f"sqlite:///{directory}/state.db")
    try:
        yield Stage(directory, store)
    finally:
        store.close()
