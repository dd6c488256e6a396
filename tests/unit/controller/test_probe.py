"""What step `probe` measures, of whom, and what it makes of it."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from msgspec.structs import replace

from blockferry.errors import CapacityError, DeadlineError, InternalError
from blockferry.identity import Role
from blockferry.limits import GIB, MIB
from blockferry.v1 import agent_pb2
from blockferry_controller.engine.lease import Holder
from blockferry_controller.engine.state import StateStore
from blockferry_controller.events import Event
from blockferry_controller.migration.context import Context, Side, need
from blockferry_controller.migration.prediction import ASSUMED_LINK, ASSUMED_VOLUME
from blockferry_controller.migration.steps.probe import MEASURE_FROM_BYTES, ProbePair
from blockferry_controller.migration.ways import Direction, Rung, Way
from blockferry_controller.spec import Endpoint, Kind, Spec, Transfer
from tests.fakes.agent import Content, MemoryAgent, MemoryLink
from tests.fakes.behind import memory_cloud
from tests.fakes.clock import ManualClock
from tests.fakes.cloud import MemoryCloud


class Stage:
    """A pair that is connected."""

    def __init__(self, store: StateStore) -> None:
        self.events: list[Event] = []
        self.link = MemoryLink(ManualClock(), bytes_per_second=40.0 * MIB)
        self.source, self.sink = self.link.agent(Role.SOURCE), self.link.agent(Role.SINK)
        spec = Spec(Kind.MIGRATE, Endpoint("east", "data"), Endpoint("west"))
        store.create("m-test", spec, "east/data", "west")
        store.acquire("m-test", Holder.of_this_process())
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

    @property
    def write_probes(self) -> list[str]:
        """Agents that were told to measure writes, a job each."""
        agents = {"source": self.source, "sink": self.sink}
        return [
            name
            for name, agent in agents.items()
            for job in agent.list_jobs()
            if job.request_id.startswith("probe-write-")
        ]

    def connect(self, direction: Direction, dialled: MemoryAgent) -> None:
        self.context.way = Way(Rung.IPV4, direction, (dialled.address,), 0.001)

    def probe(self, size_bytes: int = MEASURE_FROM_BYTES) -> str:
        for side in self.context.sides:
            side.volume = memory_cloud(side.cloud).add_volume("data", size_bytes)
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
    assert not stage.write_probes
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
    assert not stage.write_probes, "what a person named is theirs until the copy"
    assert not need(stage.context.rates).write_measured
    assert need(stage.context.rates).link_bytes_per_second == ASSUMED_LINK


def test_a_copy_on_one_machine_is_measured_only_where_somebody_asks(stage: Stage) -> None:
    spec = stage.context.spec
    stage.context.spec = replace(spec, kind=Kind.COPY)
    assert stage.probe(64 * MEASURE_FROM_BYTES) == "both devices found"
    assert stage.context.rates is None

    stage.context.spec = replace(stage.context.spec, max_duration_seconds=3600)
    stage.probe()
    assert stage.context.rates is not None


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


def test_the_destination_writes_before_the_copy(stage: Stage) -> None:
    stage.link.write_bytes_per_second = 10.0 * MIB
    told = stage.probe()
    assert stage.write_probes == ["sink"]
    rates = need(stage.context.rates)
    assert (rates.write_bytes_per_second, rates.write_measured) == (10 * MIB, True)
    assert "the destination writes 10.0 MiB/s" in told
    assert "the bottleneck is writing the destination, measured 10.0 MiB/s" in told


@pytest.mark.parametrize(("mib_per_second", "fits"), [(40.0, True), (10.0, False)])
def test_a_destination_that_writes_too_slowly_is_refused(
    stage: Stage, mib_per_second: float, fits: bool
) -> None:
    # Read and read back in 52 s each; of 2 GiB that are not zero, 205 s at 10 MiB/s.
    stage.link.bytes_per_second = 80.0 * MIB
    stage.link.write_bytes_per_second = mib_per_second * MIB
    stage.context.spec = replace(stage.context.spec, max_duration_seconds=120)
    if fits:
        stage.probe()
        return
    with pytest.raises(DeadlineError) as caught:
        stage.probe()
    assert caught.value.reason == "WINDOW_TOO_SHORT"
    assert "writing the destination, measured 10.0 MiB/s" in caught.value.message


@pytest.mark.parametrize("where", ["progress", "digests"])
def test_what_is_committed_is_not_written_over(stage: Stage, where: str) -> None:
    if where == "progress":
        stage.context.progress = replace(stage.context.progress, committed_bytes=MIB)
    else:
        stage.context.store.manifests.add("m-test", 1, 0, bytes(32))
    stage.probe(2 * MEASURE_FROM_BYTES)
    assert not stage.write_probes
    assert not need(stage.context.rates).write_measured


def test_what_an_earlier_attempt_measured_counts_when_it_is_resumed(stage: Stage) -> None:
    stage.link.write_bytes_per_second = 10.0 * MIB
    stage.probe()
    stage.context.progress = replace(stage.context.progress, committed_bytes=MIB)
    stage.probe(2 * MEASURE_FROM_BYTES)
    assert stage.write_probes == ["sink"]
    rates = need(stage.context.rates)
    assert (rates.write_bytes_per_second, rates.write_measured) == (10 * MIB, True)


def test_writes_that_cannot_be_measured_are_assumed(stage: Stage) -> None:
    # The first job is the look at the device.
    stage.sink.fail("start_job", CapacityError("NO_SPACE", "the pool is full"), nth=2)
    stage.probe()
    rates = need(stage.context.rates)
    assert (rates.write_bytes_per_second, rates.write_measured) == (ASSUMED_VOLUME, False)
    assert any("writes were not measured: the pool is full" in str(one) for one in stage.events)


def test_what_a_dead_controller_was_measuring_is_ended(stage: Stage) -> None:
    size = MEASURE_FROM_BYTES
    for side in stage.context.sides:
        side.volume = memory_cloud(side.cloud).add_volume("data", size)
        stage.link.add_volume(side.volume.id, Content(size, size // 2, "data"))
    volume = need(stage.context.destination.volume)
    spec = agent_pb2.WriteProbeSpec(transfer_id="m-test", size_bytes=size)
    spec.device.volume_id = volume.id
    spec.duration.FromSeconds(10)
    request = agent_pb2.StartJobRequest(request_id="probe-write-0", write_probe=spec)
    left = stage.sink.start_job(request)
    ProbePair().do(stage.context)
    assert stage.sink.get_job(left.id).state == agent_pb2.JOB_STATE_CANCELLED
    assert need(stage.context.rates).write_measured
