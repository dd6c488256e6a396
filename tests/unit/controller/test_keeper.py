"""What is told of a copy is kept before."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from blockferry.errors import UnreachableError
from blockferry.identity import Role
from blockferry.limits import CHUNK_BYTES, MIB
from blockferry.v1 import agent_pb2
from blockferry_controller.engine.lease import Holder
from blockferry_controller.engine.state import StateStore
from blockferry_controller.events import Event, Progress, Progressed
from blockferry_controller.migration.context import Context, Side
from blockferry_controller.migration.steps.manifests import Keeper
from blockferry_controller.spec import Endpoint, Kind, Spec
from tests.fakes.agent import Content, MemoryAgent, MemoryLink
from tests.fakes.clock import ManualClock
from tests.fakes.cloud import MemoryCloud

OWN, SIZE = "m-test", 64 * MIB


class Stage:
    """A sink that has COMMITTED, and whoever listens to its controller."""

    COMMITTED = 40 * MIB

    def __init__(self, store: StateStore) -> None:
        self.store, self.told = store, list[Progress]()
        clock = ManualClock()
        link = MemoryLink(clock, bytes_per_second=40.0 * MIB)
        source, self.sink = link.agent(Role.SOURCE), link.agent(Role.SINK)
        spec = Spec(Kind.MIGRATE, Endpoint("east", "data"), Endpoint("west"))
        store.create(OWN, spec, "east/data", "west")
        self.holder = Holder.of_this_process()
        store.acquire(OWN, self.holder)
        one, other = (
            Side(role, MemoryCloud(name), endpoint)
            for role, name, endpoint in (
                (Role.SOURCE, "east", spec.source),
                (Role.SINK, "west", spec.destination),
            )
        )
        self.context = Context(
            OWN, 1, spec, one, other, store, self.hear, lambda *_, **__: self.sink
        )
        _start_copy(link, source, self.sink)
        clock.sleep(1.0)
        (job,) = self.sink.list_jobs()
        assert job.progress.committed_bytes == self.COMMITTED
        self.note(self.COMMITTED)

    def note(self, committed_bytes: int) -> None:
        self.context.progress = Progress(size_bytes=SIZE, committed_bytes=committed_bytes)

    def hear(self, event: Event) -> None:
        """What is told must be kept by then."""
        assert isinstance(event, Progressed)
        assert self.store.get(OWN).progress == event.progress
        if event.progress.committed_bytes < SIZE:
            kept = self.store.manifests.count(OWN) * CHUNK_BYTES
            assert kept >= event.progress.committed_bytes
        self.told.append(event.progress)

    def committed(self) -> list[int]:
        return [one.committed_bytes for one in self.told]


def _start_copy(link: MemoryLink, source: MemoryAgent, sink: MemoryAgent) -> None:
    for name in ("from", "to"):
        link.add_volume(name, Content(SIZE, SIZE // 2, name))
    device = agent_pb2.DeviceSelector
    receive = agent_pb2.ReceiveSpec(
        transfer_id=OWN, device=device(volume_id="to"), size_bytes=SIZE, source_identity="s"
    )
    copy = agent_pb2.CopySpec(
        transfer_id=OWN, device=device(volume_id="from"), size_bytes=SIZE,
        sink_addresses=[sink.address],
    )  # fmt: skip
    sink.start_job(agent_pb2.StartJobRequest(request_id="receive", receive=receive))
    source.start_job(agent_pb2.StartJobRequest(request_id="copy", copy=copy))


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    store = StateStore.open(f"sqlite:///{tmp_path}/state.db")
    yield Stage(store)
    store.close()


def until(holds: Callable[[], bool]) -> None:
    """Wait, at most 10 s."""
    deadline = time.monotonic() + 10
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_digests_are_kept_before_it_is_told(stage: Stage) -> None:
    keeper = Keeper(stage.context, stage.sink)
    until(lambda: stage.committed() == [stage.COMMITTED])
    keeper.close(lost=False)
    assert stage.committed() == [stage.COMMITTED], "what has not changed is not told again"


def test_what_cannot_be_kept_is_not_told(stage: Stage) -> None:
    for _ in range(3):
        stage.sink.fail("read_manifest", UnreachableError("AGENT_UNREACHABLE", "no connection"))
    keeper = Keeper(stage.context, stage.sink)
    until(lambda: stage.sink.calls.count("read_manifest") == 3)
    assert stage.told == []
    assert stage.store.get(OWN).progress == Progress()
    until(lambda: stage.committed() == [stage.COMMITTED])
    keeper.close(lost=False)


def test_a_sink_that_is_lost_leaves_what_was_kept(stage: Stage) -> None:
    keeper = Keeper(stage.context, stage.sink)
    until(lambda: stage.committed() == [stage.COMMITTED])
    stage.sink.down = True
    stage.note(stage.COMMITTED + 8 * MIB)
    keeper.close(lost=True)
    assert stage.store.get(OWN).progress.committed_bytes == stage.COMMITTED
    assert stage.committed() == [stage.COMMITTED]


def test_what_is_complete_is_told_even_so(stage: Stage) -> None:
    keeper = Keeper(stage.context, stage.sink)
    stage.sink.down = True
    stage.note(SIZE)
    keeper.close(lost=True)
    assert stage.committed()[-1] == SIZE


def test_closing_tells_what_came_last(stage: Stage) -> None:
    keeper = Keeper(stage.context, stage.sink)
    keeper.close(lost=False)
    keeper.close(lost=False)
    assert stage.committed() == [stage.COMMITTED]


def test_whoever_has_lost_the_lease_keeps_and_tells_nothing(stage: Stage) -> None:
    stage.context.lost.set()
    Keeper(stage.context, stage.sink).close(lost=False)
    assert stage.told == []
    assert stage.store.manifests.count(OWN) == 0


@pytest.mark.parametrize("digests", [True, False], ids=["with digests", "of a repair"])
def test_whoever_has_not_heard_yet_that_another_has_begun_keeps_and_tells_nothing(
    stage: Stage, *, digests: bool
) -> None:
    stage.store.acquire(OWN, stage.holder)
    Keeper(stage.context, stage.sink if digests else None).close(lost=False)
    assert stage.told == []
    assert stage.store.manifests.count(OWN) == 0
    assert stage.context.lost.is_set()
