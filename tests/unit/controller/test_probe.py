"""What step `probe` measures, of whom, and what it makes of it."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from blockferry.errors import InternalError
from blockferry.identity import Role
from blockferry.limits import GIB, MIB
from blockferry_controller.engine.state import StateStore
from blockferry_controller.events import Event
from blockferry_controller.migration.context import Context, Side, need
from blockferry_controller.migration.prediction import ASSUMED_LINK
from blockferry_controller.migration.steps.probe import MEASURE_FROM_BYTES, ProbePair
from blockferry_controller.migration.ways import Direction, Rung, Way
from blockferry_controller.spec import Endpoint, Kind, Spec, Transfer
from tests.fakes.agent import Content, MemoryAgent, MemoryLink
from tests.fakes.cloud import MemoryCloud


class Stage:
    """A pair that is connected."""

    def __init__(self, store: StateStore) -> None:
        self.events: list[Event] = []
        self.link = MemoryLink(bytes_per_second=40.0 * MIB)
        self.source, self.sink = self.link.agent(Role.SOURCE), self.link.agent(Role.SINK)
        spec = Spec(Kind.MIGRATE, Endpoint("east", "data"), Endpoint("west"))
        store.create("m-test", spec, "east/data", "west")
        one, other = (
            Side(role, MemoryCloud(name), endpoint, agent=agent)
            for role, name, endpoint, agent in (
                (Role.SOURCE, "east", spec.source, self.source),
                (Role.SINK, "west", spec.destination, self.sink),
            )
        )
        self.context = Context(
            "m-test", 1, spec, one, other, store, self.events.append, lambda *_, **__: self.source
        )
        self.connect(Direction.SOURCE_DIALS, self.sink)

    def connect(self, direction: Direction, dialled: MemoryAgent) -> None:
        self.context.way = Way(Rung.IPV4, direction, (dialled.address,), 0.001)

    def probe(self, size_bytes: int = MEASURE_FROM_BYTES) -> str:
        for side in self.context.sides:
            cloud = side.cloud
            assert isinstance(cloud, MemoryCloud)
            side.volume = cloud.add_volume("data", size_bytes)
            self.link.add_volume(side.volume.id, Content(size_bytes, size_bytes // 2, "data"))
        return ProbePair().do(self.context)

    @property
    def asked(self) -> list[str]:
        """Who was told to measure the link."""
        agents = {"source": self.source, "sink": self.sink}
        return [name for name, agent in agents.items() if "measure_link" in agent.calls]


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    store = StateStore.open(f"sqlite:///{tmp_path}/state.db")
    yield Stage(store)
    store.close()


@pytest.mark.parametrize("direction", list(Direction), ids=lambda one: str(one.value))
def test_who_dials_measures_the_link(stage: Stage, direction: Direction) -> None:
    dials = direction is Direction.SOURCE_DIALS
    stage.connect(direction, stage.sink if dials else stage.source)
    told = stage.probe()
    assert stage.asked == ["source" if dials else "sink"]
    rates = need(stage.context.rates)
    assert (rates.link_bytes_per_second, rates.link_measured) == (40 * MIB, True)
    assert "the link carries 40.0 MiB/s" in told


def test_the_prediction_says_that_the_wire_is_the_bottleneck(stage: Stage) -> None:
    stage.context.spec = replace(stage.context.spec, transfer=Transfer(compression="none"))
    measured = stage.source.measure_link

    def slow(address: str, channels: int, seconds: float) -> object:
        found = measured(address, channels, seconds)
        found.bytes_per_second = MIB
        return found

    stage.source.measure_link = slow  # type: ignore[assignment, method-assign]
    told = stage.probe()
    assert "the bottleneck is the wire, measured 1.00 MiB/s" in told


def test_a_small_volume_is_not_worth_it(stage: Stage) -> None:
    stage.probe(GIB)
    assert not stage.asked
    assert stage.context.rates is None


def test_who_gives_a_limit_has_the_link_left_alone(stage: Stage) -> None:
    transfer = Transfer(limit_bytes_per_second=MIB)
    stage.context.spec = replace(stage.context.spec, transfer=transfer)
    stage.probe()
    assert not stage.asked
    assert not need(stage.context.rates).link_measured


def test_a_copy_on_one_machine_has_no_link(stage: Stage) -> None:
    volume = MemoryCloud("east").add_volume("data", 8 * GIB)
    stage.link.add_volume("/data", Content(8 * GIB, GIB, "data"))
    for side in stage.context.sides:
        side.volume = replace(volume, path="/data")
    ProbePair().do(stage.context)
    assert not stage.asked
    assert need(stage.context.rates).link_bytes_per_second == ASSUMED_LINK


def test_a_link_that_cannot_be_measured_is_assumed(stage: Stage) -> None:
    stage.source.fail("measure_link", InternalError("RPC_FAILED", "it does not know the call"))
    stage.probe()
    rates = need(stage.context.rates)
    assert (rates.link_bytes_per_second, rates.link_measured) == (ASSUMED_LINK, False)
    assert any("the link was not measured: it does not" in str(one) for one in stage.events)


def test_a_peer_that_does_not_answer_now_is_no_end_of_the_migration(stage: Stage) -> None:
    stage.context.way = Way(Rung.IPV4, Direction.SOURCE_DIALS, ("10.0.0.9:7443",), 0.001)
    stage.probe()
    assert not need(stage.context.rates).link_measured
    assert any("the link was not measured: no connection" in str(one) for one in stage.events)
