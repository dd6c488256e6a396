"""What every Agent must do: the promises of the port, in memory and over real mTLS.

The real side is two agent processes with real files, reached by GrpcAgent; what
flows are tested against in memory is what they meet in an instance.
"""

import os
import socket
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import pytest

from blockferry import __version__
from blockferry.errors import (
    BlockferryError,
    BusyError,
    NotFoundError,
    PreconditionError,
    UsageError,
)
from blockferry.identity import Role
from blockferry.limits import CHUNK_BYTES, MIB, RELAY_ADDRESS, RELAY_STREAMS_MAX
from blockferry.splice import open_connection
from blockferry.v1 import agent_pb2
from blockferry_controller.agents.client import GrpcAgent
from blockferry_controller.agents.port import Agent
from blockferry_controller.agents.relay import Relay
from tests.agents import MIGRATION_ID, AgentProcess, Pair
from tests.attached import AttachedFiles
from tests.fakes.agent import Content, MemoryLink

SIZE = 6 * MIB + 4096
GARBAGE = bytes(range(1, 251)) * 4096
FINAL = {
    agent_pb2.JOB_STATE_SUCCEEDED,
    agent_pb2.JOB_STATE_FAILED,
    agent_pb2.JOB_STATE_CANCELLED,
}


class Stage(Protocol):
    """A pair of agents, and what a test does behind the port's back."""

    source: Agent
    sink: Agent

    @property
    def sink_address(self) -> str: ...

    @property
    def source_address(self) -> str: ...

    def dial_source(self) -> Agent:
        """Another connection to the source."""
        ...

    def dial_sink(self) -> socket.socket:
        """What a relay connects to."""
        ...

    def volume(self, size_bytes: int, *, name: str = "") -> str:
        """A path for a DeviceSelector; equal non-empty names are equal content."""
        ...

    def new_volume(self, size_bytes: int) -> str:
        """The id of a volume of garbage that is attached to the sink; may skip the test."""
        ...

    def certificate(self, role: Role, signing_request: bytes) -> bytes:
        """The migration's authority's answer."""
        ...

    def successor(self) -> Agent:
        """A connection to the sink, of the controller of the next epoch."""
        ...


class MemoryStage:
    def __init__(self) -> None:
        self.link = MemoryLink()
        source = self.link.agent(Role.SOURCE, MIGRATION_ID)
        self.source: Agent = source
        self.dial_source = source.dial
        self.source_address = source.address
        sink = self.link.agent(Role.SINK, MIGRATION_ID)
        self.sink: Agent = sink
        self.sink_address = sink.address
        self.source.adopt_identity(b"certificate")
        self.sink.adopt_identity(b"certificate")

    def dial_sink(self) -> socket.socket:
        raise ConnectionRefusedError

    def volume(self, size_bytes: int, *, name: str = "") -> str:
        path = f"/{uuid.uuid4().hex}"
        content = Content(size_bytes, size_bytes // 2 if name else 0, name or "zeros")
        self.link.add_volume(path, content)
        return path

    def new_volume(self, size_bytes: int) -> str:
        volume_id = str(uuid.uuid4())
        self.link.add_volume(volume_id, Content(size_bytes, size_bytes, "garbage"))
        return volume_id

    def certificate(self, role: Role, signing_request: bytes) -> bytes:
        return b"certificate of " + role.value.encode()

    def successor(self) -> Agent:
        return self.sink


@dataclass
class RealStage:
    pair: Pair
    directory: Path
    source: Agent
    sink: Agent
    attached: AttachedFiles | None

    @property
    def sink_address(self) -> str:
        return self.pair.sink.address

    @property
    def source_address(self) -> str:
        return self.pair.source.address

    def dial_source(self) -> Agent:
        return connect(self.pair.source)

    def dial_sink(self) -> socket.socket:
        return open_connection(self.pair.sink.address)

    def volume(self, size_bytes: int, *, name: str = "") -> str:
        path = self.directory / uuid.uuid4().hex
        with path.open("wb") as file:
            file.truncate(size_bytes)
            if name:
                file.write((name.encode() * size_bytes)[: size_bytes // 2])
        return str(path)

    def new_volume(self, size_bytes: int) -> str:
        if self.attached is None:
            pytest.skip("the agent cannot be shown disks here")
        volume_id, path = str(uuid.uuid4()), self.directory / uuid.uuid4().hex
        path.write_bytes(GARBAGE * -(-size_bytes // len(GARBAGE)))
        os.truncate(path, size_bytes)
        self.attached.attach(path, volume_id)
        return volume_id

    def certificate(self, role: Role, signing_request: bytes) -> bytes:
        return self.pair.sink.authority.sign(signing_request, role, 1)

    def successor(self) -> Agent:
        return connect(self.pair.sink, epoch=2)


def connect(process: AgentProcess, epoch: int = 1) -> GrpcAgent:
    return GrpcAgent.connect(
        process.address,
        identity=process.identity,
        credentials=process.authority.controller(epoch),
        root_pem=process.authority.migration_root_pem,
    )


@pytest.fixture(scope="module", params=["memory", "grpc"])
def stage(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Stage]:
    with made(request.param, tmp_path_factory.mktemp("agents")) as stage:
        yield stage


@pytest.fixture(params=["memory", "grpc"])
def own_stage(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Stage]:
    """For what leaves agents as no other test wants them."""
    with made(request.param, tmp_path) as stage:
        yield stage


@contextmanager
def made(kind: str, directory: Path) -> Iterator[Stage]:
    if kind == "memory":
        yield MemoryStage()
        return
    with ExitStack() as held:
        files = AttachedFiles(directory / "attached")
        attached = files if files.works else None
        within = files.within if attached else ()
        pair = held.enter_context(Pair(directory / "pair", sink_within=within))
        source, sink = connect(pair.source), connect(pair.sink)
        held.callback(source.close)
        held.callback(sink.close)
        yield RealStage(pair, directory, source, sink, attached)


def new_id() -> str:
    return uuid.uuid4().hex


def device(path: str) -> agent_pb2.DeviceSelector:
    return agent_pb2.DeviceSelector(path=path)


def digest_request(path: str, request_id: str = "") -> agent_pb2.StartJobRequest:
    spec = agent_pb2.DigestSpec(device=device(path))
    return agent_pb2.StartJobRequest(request_id=request_id or new_id(), digest=spec)


def receive_request(transfer_id: str, path: str, size: int = SIZE) -> agent_pb2.StartJobRequest:
    spec = agent_pb2.ReceiveSpec(
        transfer_id=transfer_id,
        device=device(path),
        size_bytes=size,
        source_identity="a source",
    )
    return agent_pb2.StartJobRequest(request_id=new_id(), receive=spec)


def copy_request(
    stage: Stage, transfer_id: str, path: str, *, limit: int = 0
) -> agent_pb2.StartJobRequest:
    spec = agent_pb2.CopySpec(
        transfer_id=transfer_id,
        device=device(path),
        size_bytes=SIZE,
        sink_addresses=[stage.sink_address],
        limit_bytes_per_second=limit,
    )
    return agent_pb2.StartJobRequest(request_id=new_id(), copy=spec)


def write_probe_request(
    volume_id: str, size_bytes: int, transfer_id: str = "", *, seconds: float = 1.0
) -> agent_pb2.StartJobRequest:
    spec = agent_pb2.WriteProbeSpec(
        transfer_id=transfer_id or f"m-{new_id()}",
        device=agent_pb2.DeviceSelector(volume_id=volume_id),
        size_bytes=size_bytes,
    )
    spec.duration.FromMilliseconds(round(seconds * 1000))
    return agent_pb2.StartJobRequest(request_id=new_id(), write_probe=spec)


def finish(agent: Agent, job: agent_pb2.Job) -> agent_pb2.Job:
    *_, last = agent.watch_job(job.id, 0.05)
    return last


def test_it_says_who_it_is(stage: Stage) -> None:
    for agent, role in (
        (stage.source, agent_pb2.ROLE_SOURCE),
        (stage.sink, agent_pb2.ROLE_SINK),
    ):
        told = agent.describe()
        assert (told.version, told.migration_id, told.role) == (__version__, MIGRATION_ID, role)
        assert told.adopted
        assert told.epoch == 1
        assert told.boot_id
        assert told.cpu_count >= 1
        assert told.HasField("now")


def test_it_lists_disks(stage: Stage) -> None:
    paths = [device.path for device in stage.sink.list_block_devices()]
    assert paths == sorted(paths)


def test_it_takes_a_new_identity_as_often_as_asked(stage: Stage) -> None:
    request = stage.source.create_signing_request()
    assert b"CERTIFICATE REQUEST" in request
    certificate = stage.certificate(Role.SOURCE, request)
    stage.source.adopt_identity(certificate)
    stage.source.adopt_identity(certificate)
    assert stage.source.describe().adopted


def test_equal_content_has_equal_roots(stage: Stage) -> None:
    names = ["same", "same", "other"]
    roots = []
    for name in names:
        path = stage.volume(SIZE, name=name)
        job = finish(stage.source, stage.source.start_job(digest_request(path)))
        assert job.state == agent_pb2.JOB_STATE_SUCCEEDED
        assert job.progress.verified_bytes == job.progress.size_bytes == SIZE
        assert job.HasField("start_time")
        assert job.HasField("end_time")
        roots.append(job.root_digest)
    assert {len(root) for root in roots} == {32}
    assert roots[0] == roots[1] != roots[2]


def test_a_request_id_means_one_job(stage: Stage) -> None:
    request = digest_request(stage.volume(SIZE), new_id())
    first = stage.sink.start_job(request)
    assert finish(stage.sink, first).request_id == request.request_id
    again = stage.sink.start_job(request)
    assert again.id == first.id
    assert again.state == agent_pb2.JOB_STATE_SUCCEEDED
    assert stage.sink.get_job(first.id) == again
    assert [job.id for job in stage.sink.list_jobs()].count(first.id) == 1


def test_a_volume_crosses(stage: Stage) -> None:
    transfer_id = f"m-{new_id()}"
    receive = stage.sink.start_job(receive_request(transfer_id, stage.volume(SIZE)))
    copy = stage.source.start_job(
        copy_request(stage, transfer_id, stage.volume(SIZE, name="crossing"))
    )
    seen = list(stage.sink.watch_job(receive.id, 0.05))
    done, sent = seen[-1], finish(stage.source, copy)
    assert sent.state == done.state == agent_pb2.JOB_STATE_SUCCEEDED
    assert sent.root_digest == done.root_digest
    assert done.verified
    committed = [job.progress.committed_bytes for job in seen]
    assert committed == sorted(committed)
    assert committed[-1] == SIZE
    assert done.progress.data_bytes + done.progress.zero_bytes == SIZE
    assert sent.progress.resumed_from_bytes == 0
    manifests = [
        b"".join(digests for _, digests in agent.read_manifest(transfer_id, 0))
        for agent in (stage.source, stage.sink)
    ]
    assert manifests[0] == manifests[1]
    assert len(manifests[0]) == 32 * -(-SIZE // CHUNK_BYTES)
    assert list(stage.sink.read_manifest(transfer_id, 2)) == [(2, manifests[0][64:])]


def test_a_copy_waits_and_goes_on(stage: Stage) -> None:
    transfer_id = f"m-{new_id()}"
    receive = stage.sink.start_job(receive_request(transfer_id, stage.volume(SIZE)))
    request = copy_request(stage, transfer_id, stage.volume(SIZE, name="paused"), limit=64)
    copy = stage.source.start_job(request)
    assert stage.source.update_job(copy.id, paused=True).state == agent_pb2.JOB_STATE_PAUSED
    assert next(stage.source.watch_job(copy.id, 0.05)).state == agent_pb2.JOB_STATE_PAUSED
    changed = stage.source.update_job(copy.id, limit_bytes_per_second=0, paused=False)
    assert changed.state == agent_pb2.JOB_STATE_RUNNING
    assert finish(stage.source, copy).state == agent_pb2.JOB_STATE_SUCCEEDED
    assert finish(stage.sink, receive).state == agent_pb2.JOB_STATE_SUCCEEDED


def test_a_job_ends_when_asked(stage: Stage) -> None:
    receive = stage.sink.start_job(receive_request(f"m-{new_id()}", stage.volume(SIZE)))
    assert receive.state == agent_pb2.JOB_STATE_RUNNING
    stage.sink.cancel_job(receive.id)
    ended = finish(stage.sink, receive)
    assert ended.state == agent_pb2.JOB_STATE_CANCELLED
    assert stage.sink.cancel_job(receive.id).state == agent_pb2.JOB_STATE_CANCELLED


def test_only_a_copy_can_be_adjusted(stage: Stage) -> None:
    receive = stage.sink.start_job(receive_request(f"m-{new_id()}", stage.volume(SIZE)))
    with pytest.raises(UsageError) as caught:
        stage.sink.update_job(receive.id, paused=True)
    assert caught.value.reason == "NOT_ADJUSTABLE"
    stage.sink.cancel_job(receive.id)
    finish(stage.sink, receive)


def test_one_job_a_device_and_one_a_transfer(stage: Stage) -> None:
    transfer_id, path = f"m-{new_id()}", stage.volume(SIZE)
    receive = stage.sink.start_job(receive_request(transfer_id, path))
    for refused in (
        digest_request(path),
        receive_request(f"m-{new_id()}", path),
        receive_request(transfer_id, stage.volume(SIZE)),
    ):
        with pytest.raises(BusyError):
            stage.sink.start_job(refused)
    with pytest.raises(BusyError):
        stage.sink.write_manifest(transfer_id, [(0, bytes(32))])
    stage.sink.cancel_job(receive.id)
    finish(stage.sink, receive)


def test_what_cannot_be_done_is_refused_at_once(stage: Stage) -> None:
    here, small = stage.volume(SIZE), stage.volume(SIZE - 1)
    cases: list[tuple[Agent, agent_pb2.StartJobRequest, type[BlockferryError], str]] = [
        (stage.source, digest_request("/not/there"), NotFoundError, "DEVICE_NOT_FOUND"),
        (stage.source, receive_request("m-1", here), PreconditionError, "WRONG_ROLE"),
        (stage.sink, copy_request(stage, "m-1", here), PreconditionError, "WRONG_ROLE"),
        (stage.sink, receive_request("m-1", small), PreconditionError, "DESTINATION_TOO_SMALL"),
        (stage.sink, agent_pb2.StartJobRequest(request_id="x"), UsageError, "REQUEST_INVALID"),
        (
            stage.source,
            copy_request(stage, "m-1", small),
            PreconditionError,
            "DEVICE_SIZE_DIFFERS",
        ),
    ]
    for agent, request, cls, reason in cases:
        with pytest.raises(cls) as caught:
            agent.start_job(request)
        assert caught.value.reason == reason
        assert caught.value.message


@pytest.mark.parametrize(
    "call",
    [
        pytest.param(lambda agent: agent.get_job("none"), id="get"),
        pytest.param(lambda agent: agent.cancel_job("none"), id="cancel"),
        pytest.param(lambda agent: agent.update_job("none", paused=True), id="update"),
        pytest.param(lambda agent: next(agent.watch_job("none", 0.05)), id="watch"),
    ],
)
def test_an_unknown_job_is_not_found(stage: Stage, call: Any) -> None:
    with pytest.raises(NotFoundError) as caught:
        call(stage.source)
    assert caught.value.reason == "JOB_NOT_FOUND"


def test_a_manifest_is_kept_for_who_comes_next(stage: Stage) -> None:
    transfer_id = f"m-{new_id()}"
    digests = bytes(range(96))
    assert stage.sink.write_manifest(transfer_id, [(0, digests[:64]), (2, digests[64:])]) == 3
    assert list(stage.sink.read_manifest(transfer_id, 1)) == [(1, digests[32:])]
    assert stage.sink.write_manifest(transfer_id, [(0, digests[:32])]) == 3
    assert stage.sink.write_manifest(transfer_id, [(0, digests[32:64])]) == 1
    with pytest.raises(UsageError) as caught:
        stage.sink.write_manifest(transfer_id, [(1, digests[:32])])
    assert caught.value.reason == "MANIFEST_GAP"
    with pytest.raises(NotFoundError) as missing:
        list(stage.sink.read_manifest("m-never-heard-of", 0))
    assert missing.value.reason == "TRANSFER_NOT_FOUND"


def test_a_new_sink_goes_on_where_the_controller_says(stage: Stage) -> None:
    transfer_id, path = f"m-{new_id()}", stage.volume(SIZE)
    stage.sink.write_manifest(transfer_id, [(0, bytes(32 * 4))])
    request = receive_request(transfer_id, path)
    request.receive.known_committed_bytes = 3 * CHUNK_BYTES
    receive = stage.sink.start_job(request)
    assert receive.progress.committed_bytes == 3 * CHUNK_BYTES
    stage.sink.cancel_job(receive.id)
    finish(stage.sink, receive)


def test_each_finds_the_other_and_nobody_else(stage: Stage) -> None:
    nowhere = "127.0.0.1:1"
    for agent, own, peer in (
        (stage.source, stage.source_address, stage.sink_address),
        (stage.sink, stage.sink_address, stage.source_address),
    ):
        reaches = agent.probe_peer([nowhere, peer, own], 5.0)
        assert [reach.address for reach in reaches] == [nowhere, peer, own]
        assert [reach.reachable for reach in reaches] == [False, True, False]
        missed, found, _ = reaches
        assert missed.error.reason == "AGENT_UNREACHABLE"
        assert 0 < found.latency.ToTimedelta().total_seconds() < 5


@pytest.mark.parametrize("count", [0, 17])
def test_a_peer_is_looked_for_at_a_few_addresses(stage: Stage, count: int) -> None:
    with pytest.raises(UsageError) as caught:
        stage.source.probe_peer(["127.0.0.1:1"] * count, 1.0)
    assert caught.value.reason == "OUT_OF_RANGE"


def test_a_peer_is_behind_the_relay_while_streams_are_lent(stage: Stage) -> None:
    def reach() -> agent_pb2.PeerReach:
        return stage.source.probe_peer([RELAY_ADDRESS], 5.0)[0]

    assert not reach().reachable
    relay = Relay(stage.dial_source, stage.dial_sink)
    try:
        until = time.monotonic() + 20
        while not (found := reach()).reachable:
            assert time.monotonic() < until, found.error
        assert found.address == RELAY_ADDRESS
    finally:
        relay.close()
    until = time.monotonic() + 20
    while (left := reach()).reachable:
        assert time.monotonic() < until, "the streams outlive the relay"
    assert left.error.reason in {"AGENT_UNREACHABLE", "PEER_SILENT"}


def measured_early(agent: Agent, address: str) -> agent_pb2.MeasureLinkResponse:
    """Jobs of the test before may be about to end."""
    until = time.monotonic() + 30
    while True:
        try:
            found = agent.measure_link(address, 2, 0.5)
            if found.error.reason not in {"BUSY", "AGENT_UNREACHABLE"}:
                return found
        except BusyError:
            pass
        assert time.monotonic() < until


@pytest.mark.parametrize("dialler", [Role.SOURCE, Role.SINK])
def test_the_link_is_measured_whoever_dials(stage: Stage, dialler: Role) -> None:
    agent, address = (
        (stage.source, stage.sink_address)
        if dialler is Role.SOURCE
        else (stage.sink, stage.source_address)
    )
    found = measured_early(agent, address)
    assert not found.HasField("error"), found.error
    assert found.bytes_per_second > 0
    # The sink tells every 20 ms what has arrived: the faster the link, the more is under way.
    assert 0 < found.received_bytes <= 256 * MIB + 2 * CHUNK_BYTES + found.bytes_per_second // 10
    assert not agent.list_jobs() or all(job.state in FINAL for job in agent.list_jobs())


def test_the_link_is_measured_over_the_relay(stage: Stage) -> None:
    relay = Relay(stage.dial_source, stage.dial_sink)
    try:
        found = measured_early(stage.source, RELAY_ADDRESS)
        assert found.bytes_per_second > 0, found.error
    finally:
        relay.close()


@pytest.mark.parametrize("who", ["source", "sink"])
def test_a_link_that_is_at_work_is_not_measured(stage: Stage, who: str) -> None:
    measured_early(stage.source, stage.sink_address)
    transfer_id = f"m-{new_id()}"
    path = stage.volume(SIZE, name="measured")
    if who == "sink":
        agent, job = stage.sink, stage.sink.start_job(receive_request(transfer_id, path))
    else:
        agent, request = stage.source, copy_request(stage, transfer_id, path, limit=64)
        job = stage.source.start_job(request)
        with pytest.raises(BusyError) as caught:
            stage.source.measure_link(stage.sink_address, 2, 0.5)
        assert caught.value.reason == "BUSY"
    if who == "sink":
        found = stage.source.measure_link(stage.sink_address, 2, 0.5)
    else:
        found = stage.sink.measure_link(stage.source_address, 2, 0.5)
    assert found.error.reason == "BUSY"
    assert not found.received_bytes
    agent.cancel_job(job.id)
    finish(agent, job)


def test_a_peer_that_is_not_there_is_no_error(stage: Stage) -> None:
    measured_early(stage.source, stage.sink_address)
    found = stage.source.measure_link("127.0.0.1:1", 1, 0.5)
    assert found.error.reason == "AGENT_UNREACHABLE"
    assert (found.bytes_per_second, found.received_bytes) == (0, 0)


@pytest.mark.parametrize(("channels", "seconds"), [(17, 1.0), (-1, 1.0), (1, 10.5)])
def test_a_link_is_measured_within_bounds(stage: Stage, channels: int, seconds: float) -> None:
    with pytest.raises(UsageError):
        stage.source.measure_link(stage.sink_address, channels, seconds)


def test_the_writes_of_a_new_volume_are_measured(stage: Stage) -> None:
    volume_id = stage.new_volume(64 * MIB)
    job = stage.sink.start_job(write_probe_request(volume_id, 64 * MIB))
    done = finish(stage.sink, job)
    assert done.state == agent_pb2.JOB_STATE_SUCCEEDED, done.error
    assert done.probe_result.write_bytes_per_second > 0
    assert not done.progress.committed_bytes


def test_too_little_to_measure_is_no_rate_and_no_error(stage: Stage) -> None:
    volume_id = stage.new_volume(4 * MIB)
    done = finish(stage.sink, stage.sink.start_job(write_probe_request(volume_id, 4 * MIB)))
    assert done.state == agent_pb2.JOB_STATE_SUCCEEDED, done.error
    assert not done.probe_result.write_bytes_per_second


def test_what_a_person_named_is_not_written_to_be_measured(stage: Stage) -> None:
    request = write_probe_request("", SIZE)
    request.write_probe.device.path = stage.volume(SIZE, name="mine")
    with pytest.raises(UsageError) as caught:
        stage.sink.start_job(request)
    assert caught.value.reason == "VOLUME_ID_NEEDED"


@pytest.mark.parametrize("how", ["a receive job", "an earlier agent's digests"])
def test_a_transfer_that_has_begun_is_not_written_over(stage: Stage, how: str) -> None:
    transfer_id, volume_id = f"m-{new_id()}", stage.new_volume(SIZE)
    if how == "a receive job":
        receive = receive_request(transfer_id, "")
        receive.receive.device.volume_id = volume_id
        job = stage.sink.start_job(receive)
        with pytest.raises(BusyError):
            stage.sink.start_job(write_probe_request(volume_id, SIZE, transfer_id))
        stage.sink.cancel_job(job.id)
        finish(stage.sink, job)
    else:
        stage.sink.write_manifest(transfer_id, [(0, bytes(32))])
    with pytest.raises(PreconditionError) as caught:
        stage.sink.start_job(write_probe_request(volume_id, SIZE, transfer_id))
    assert caught.value.reason == "TRANSFER_BEGUN"


def test_nothing_else_is_done_with_a_volume_while_its_writes_are_measured(stage: Stage) -> None:
    # Large enough to be at work for a moment; what is written meanwhile is an eighth.
    volume_id, transfer_id = stage.new_volume(1024 * MIB), f"m-{new_id()}"
    probe = write_probe_request(volume_id, 1024 * MIB, transfer_id, seconds=5)
    job = stage.sink.start_job(probe)
    receive = receive_request(transfer_id, "")
    receive.receive.device.volume_id = volume_id
    with pytest.raises(BusyError):
        stage.sink.start_job(receive)
    stage.sink.cancel_job(job.id)
    assert finish(stage.sink, job).state == agent_pb2.JOB_STATE_CANCELLED
    started = stage.sink.start_job(receive)
    stage.sink.cancel_job(started.id)
    finish(stage.sink, started)


@pytest.mark.parametrize(
    ("who", "size_bytes", "seconds", "reason"),
    [
        pytest.param("source", SIZE, 1.0, "WRONG_ROLE", id="source"),
        pytest.param("sink", SIZE + 1, 1.0, "DESTINATION_TOO_SMALL", id="too small"),
        pytest.param("sink", SIZE, 10.5, "OUT_OF_RANGE", id="too long"),
        pytest.param("sink", SIZE, -1.0, "OUT_OF_RANGE", id="below zero"),
    ],
)
def test_writes_are_measured_within_bounds(
    stage: Stage, who: str, size_bytes: int, seconds: float, reason: str
) -> None:
    request = write_probe_request(stage.new_volume(SIZE), size_bytes, seconds=seconds)
    agent = stage.sink
    if who == "source":
        # Its /dev is the machine's.
        agent = stage.source
        request.write_probe.device.path = stage.volume(SIZE)
    with pytest.raises(BlockferryError) as caught:
        agent.start_job(request)
    assert caught.value.reason == reason


def test_an_agent_is_lent_so_many_streams_and_no_more(stage: Stage) -> None:
    if not isinstance(stage, RealStage):
        pytest.skip("an agent in memory has no threads to lose")
    with ExitStack() as held:
        told, errors = threading.Event(), list[BlockferryError]()
        held.callback(told.set)

        def lend() -> None:
            with closing(stage.dial_source()) as agent:
                held.callback(agent.close)
                try:
                    list(agent.relay(b"" for _ in range(1) if told.wait()))
                except BlockferryError as error:
                    errors.append(error)

        # A few more: what an earlier dial has left in the queue uses one up.
        for _ in range(RELAY_STREAMS_MAX + 4):
            threading.Thread(target=lend, daemon=True).start()
        until = time.monotonic() + 20
        while not errors:
            assert time.monotonic() < until
            time.sleep(0.02)
        assert {error.reason for error in errors} == {"TOO_MANY_RELAYS"}
        assert stage.source.describe().adopted


def test_who_comes_after_a_vacating_finds_nothing(own_stage: Stage) -> None:
    sink, path = own_stage.sink, own_stage.volume(SIZE)
    ended, running = digest_request(path), receive_request("m-running", own_stage.volume(SIZE))
    finish(sink, sink.start_job(ended))
    sink.write_manifest("m-before", [(0, bytes(32))])
    sink.start_job(running)
    sink.vacate()
    with closing(own_stage.successor()) as next_one:
        assert next_one.describe().epoch == 2
        assert next_one.list_jobs() == []
        for transfer_id in ("m-before", "m-running"):
            with pytest.raises(NotFoundError) as caught:
                list(next_one.read_manifest(transfer_id, 0))
            assert caught.value.reason == "TRANSFER_NOT_FOUND"
        again = next_one.start_job(ended)
        assert finish(next_one, again).state == agent_pb2.JOB_STATE_SUCCEEDED
        assert [job.id for job in next_one.list_jobs()] == [again.id]


def test_closing_twice_is_fine(stage: Stage) -> None:
    if isinstance(stage, RealStage):
        agent = connect(stage.pair.sink)
        agent.close()
        agent.close()
    else:
        stage.sink.close()
        stage.sink.close()
