"""The two clouds of these tests, the command line beside them, and the summary."""

import os
import uuid
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

from tests.e2e.command import Record, Run
from tests.e2e.operator import operator_of
from tests.e2e.pair import Existing, TenantCloud
from tests.e2e.scene import Scene
from tests.e2e.scene import scene as make_scene

RECORDS: Final = pytest.StashKey[list[Record]]()


def cloud_name(side: str) -> str:
    """What clouds.yaml calls the source or the destination."""
    default = {"SOURCE": "east", "DESTINATION": "west"}[side]
    return os.environ.get(f"BLOCKFERRY_E2E_{side}") or default


@dataclass
class Ferry:
    """Both clouds, and `blockferry` between them.

    Attributes:
        directory: Where its configuration and state are.
        options: Its configuration of each cloud.
        runs: All commands that were started.
    """

    source: TenantCloud
    destination: TenantCloud
    directory: Path
    record: Record
    options: dict[str, dict[str, object]] = field(default_factory=dict)
    runs: list[Run] = field(default_factory=list)

    def __post_init__(self) -> None:
        for cloud in (self.source, self.destination):
            self.options[cloud.name] = {"wheels": cloud.wheels} if cloud.wheels else {}

    @property
    def environment(self) -> Mapping[str, str]:
        """Ours without what somebody set for a `blockferry` of their own."""
        kept = {
            name: said for name, said in os.environ.items() if not name.startswith("BLOCKFERRY")
        }
        ours = {"CONFIG": f"{self.directory}/config.yaml"}
        ours["STATE"] = f"sqlite:///{self.directory}/state.db"
        return kept | {f"BLOCKFERRY_{name}": said for name, said in ours.items()}

    def migrate(self, volume_id: str, *options: object) -> Run:
        """`blockferry migrate`, started."""
        return self.start("migrate", volume_id, *self.way(), *options)

    def way(self) -> tuple[str, ...]:
        """From where to where, for a command."""
        return "--from", self.source.name, "--to", self.destination.name

    def start(self, *arguments: object) -> Run:
        """`blockferry`, started."""
        config = {"clouds": {name: said for name, said in self.options.items() if said}}
        (self.directory / "config.yaml").write_text(yaml.safe_dump(config))
        self.runs.append(Run(self.environment, *arguments))
        return self.runs[-1]

    def finish(self, run: Run) -> Run:
        """Wait for a success."""
        code = run.wait()
        self.record.add(run)
        assert code == 0, run.told()
        return run

    def run(self, *arguments: object) -> Run:
        """`blockferry`, to its successful end."""
        return self.finish(self.start(*arguments))

    def clear(self, before: tuple[Existing, Existing]) -> None:
        """End and remove what a failed test left, and the new volumes in any case."""
        for run in self.runs:
            run.end()
        left = [now.since(then) for now, then in zip(self.existing(), before, strict=True)]
        if {kind for came in left for kind in came} - {"volume"}:
            self.start("cleanup").wait()
        for volume_id in self.destination.existing().ids["volume"] - before[1].ids["volume"]:
            self.destination.delete_volume(volume_id)

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
        """Nothing came, went or changed since `before`, but for new volumes in the destination."""
        left = [now.since(then) for now, then in zip(self.existing(), before, strict=True)]
        expected = [{}, {"volume": sorted(volume_ids)} if volume_ids else {}]
        assert left == expected
        what = f"none but volume {', '.join(volume_ids)}" if volume_ids else "none"
        self.record.lines.append(f"  left-overs: {what}")


def tenant(side: str) -> TenantCloud:
    """The cloud of one side; where its instances install from, if that is told."""
    wheels, by_ipv6 = (
        os.environ.get(f"BLOCKFERRY_E2E_{side}_WHEELS{family}", "") for family in ("", "_IPV6")
    )
    return TenantCloud(cloud_name(side), wheels, by_ipv6 or wheels)


@pytest.fixture(scope="session")
def source() -> TenantCloud:
    """Where volumes come from."""
    return tenant("SOURCE")


@pytest.fixture(scope="session")
def destination() -> TenantCloud:
    """Where they go."""
    return tenant("DESTINATION")


@pytest.fixture(scope="session", autouse=True)
def nothing_left(source: TenantCloud, destination: TenantCloud) -> Iterator[None]:
    """After all tests, those of other directories too, both clouds are what they were."""

    def existing() -> tuple[Existing, Existing]:
        with warnings.catch_warnings():
            # The SDK warns of what its own methods call.
            warnings.simplefilter("ignore")
            return source.existing(), destination.existing()

    before = existing()
    yield
    left = [now.since(then) for now, then in zip(existing(), before, strict=True)]
    assert left == [{}, {}]


@pytest.fixture(scope="session")
def scene(source: TenantCloud, destination: TenantCloud) -> Iterator[Scene]:
    """Guests, and a volume with files."""
    with make_scene(source, destination) as made:
        yield made


@pytest.fixture
def shared_type(source: TenantCloud) -> Iterator[str]:
    """A volume type of the source alone, whose volumes may be attached several times."""
    name = f"e2e-shared-{uuid.uuid4().hex[:8]}"
    with operator_of(source.name) as op, op.volume_type(name, multiattach="<is> True"):
        yield name


@pytest.fixture
def shared_type_there(shared_type: str, destination: TenantCloud) -> Iterator[str]:
    """The type of the same name in the destination."""
    with operator_of(destination.name) as op, op.volume_type(shared_type, multiattach="<is> True"):
        yield shared_type


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
    ferry = Ferry(source, destination, tmp_path, record)
    before = ferry.existing()
    yield ferry
    ferry.clear(before)


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    """What each variant came to."""
    for record in config.stash.get(RECORDS, []):
        terminalreporter.write_sep("-", record.variant)
        for line in record.lines:
            terminalreporter.write_line(line)
