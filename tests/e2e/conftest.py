"""The two clouds of these tests, the command line beside them, and the summary."""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

from tests.e2e.command import Record, Run
from tests.e2e.pair import Existing, TenantCloud

RECORDS: Final = pytest.StashKey[list[Record]]()


def cloud_name(side: str) -> str:
    """What clouds.yaml calls the source or the destination."""
    default = {"SOURCE": "east", "DESTINATION": "west"}[side]
    return os.environ.get(f"BLOCKFERRY_E2E_{side}") or default


@dataclass
class Ferry:
    """Both clouds, and `blockferry` between them."""

    source: TenantCloud
    destination: TenantCloud
    environment: Mapping[str, str]
    record: Record

    def migrate(self, volume_id: str, *options: object) -> Run:
        """`blockferry migrate`, started."""
        clouds = ("--from", self.source.name, "--to", self.destination.name)
        return self.start("migrate", volume_id, *clouds, *options)

    def start(self, *arguments: object) -> Run:
        """`blockferry`, started."""
        return Run(self.environment, *arguments)

    def finish(self, run: Run) -> Run:
        """Wait for a success."""
        code = run.wait()
        self.record.add(run)
        assert code == 0, run.told()
        return run

    def run(self, *arguments: object) -> Run:
        """`blockferry`, to its successful end."""
        return self.finish(self.start(*arguments))

    def existing(self) -> tuple[Existing, Existing]:
        """What there is in both clouds."""
        return self.source.existing(), self.destination.existing()

    @contextmanager
    def nothing_changes(self) -> Iterator[None]:
        """Both clouds' lists are afterwards what they were before."""
        before = self.existing()
        yield
        self.assert_only(before)

    def assert_only(self, before: tuple[Existing, Existing], *volume_ids: str) -> None:
        """Nothing came or went since `before`, but for volumes in the destination."""
        left = [now.since(then) for now, then in zip(self.existing(), before, strict=True)]
        expected = [{}, {"volume": sorted(volume_ids)} if volume_ids else {}]
        assert left == expected
        what = f"volume {', '.join(volume_ids)}" if volume_ids else "nothing"
        self.record.lines.append(f"  left over: {what}")


@pytest.fixture(scope="session")
def source() -> TenantCloud:
    """Where volumes come from."""
    return TenantCloud(cloud_name("SOURCE"), os.environ.get("BLOCKFERRY_E2E_SOURCE_WHEELS", ""))


@pytest.fixture(scope="session")
def destination() -> TenantCloud:
    """Where they go."""
    wheels = os.environ.get("BLOCKFERRY_E2E_DESTINATION_WHEELS", "")
    return TenantCloud(cloud_name("DESTINATION"), wheels)


@pytest.fixture
def ferry(
    source: TenantCloud,
    destination: TenantCloud,
    tmp_path: Path,
    request: pytest.FixtureRequest,
) -> Iterator[Ferry]:
    """A command line with a state of its own; what a failed test leaves is removed."""
    record = Record(request.node.name)
    request.config.stash.setdefault(RECORDS, []).append(record)
    config = tmp_path / "config.yaml"
    sections = {one.name: {"wheels": one.wheels} for one in (source, destination) if one.wheels}
    config.write_text(yaml.safe_dump({"clouds": sections}))
    kept = {name: text for name, text in os.environ.items() if not name.startswith("BLOCKFERRY_")}
    ours = {
        "BLOCKFERRY_CONFIG": str(config),
        "BLOCKFERRY_STATE": f"sqlite:///{tmp_path}/state.db",
    }
    ferry = Ferry(source, destination, kept | ours, record)
    before = destination.existing().ids["volume"]
    yield ferry
    ferry.start("cleanup").wait()
    for volume_id in destination.existing().ids["volume"] - before:
        destination.delete_volume(volume_id)


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    """What each variant came to."""
    for record in config.stash.get(RECORDS, []):
        terminalreporter.write_sep("-", record.variant)
        for line in record.lines:
            terminalreporter.write_line(line)
