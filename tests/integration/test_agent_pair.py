"""Two real agents over real mTLS: what arrives is what was there."""

import os
import random
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest

from blockferry.errors import BlockferryError
from blockferry.limits import CHUNK_BYTES, MIB
from blockferry.v1 import agent_pb2
from blockferry.wire import from_rpc_error
from tests.agents import MIGRATION_ID, Pair

SUCCEEDED = agent_pb2.JOB_STATE_SUCCEEDED


@pytest.fixture(scope="module", params=[False, True], ids=["push", "pull"])
def pair(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Pair]:
    with Pair(tmp_path_factory.mktemp("agents"), sink_dials=request.param) as pair:
        yield pair


def mixed(path: Path, size: int, *, seed: int = 1) -> Path:
    """Holes, written zeros, text and noise in turn, chunk by chunk."""
    dice = random.Random(seed)
    with path.open("wb") as file:
        for number, at in enumerate(range(0, size, CHUNK_BYTES)):
            length = min(CHUNK_BYTES, size - at)
            file.seek(at)
            kind = number % 4
            if kind == 0:
                file.write(dice.randbytes(length))
            elif kind == 1:
                file.write((b"a line of text %d\n" % number * length)[:length])
            elif kind == 2:
                file.write(bytes(length))
    os.truncate(path, size)
    return path


def garbage(path: Path, size: int) -> Path:
    path.write_bytes(random.Random(99).randbytes(size))
    return path


def digest_of(pair: Pair, path: Path, size: int = 0) -> bytes:
    spec = agent_pb2.DigestSpec(device=agent_pb2.DeviceSelector(path=str(path)), size_bytes=size)
    request = agent_pb2.StartJobRequest(request_id=f"digest-{path}", digest=spec)
    job = pair.source.finish(pair.source.start_job(request).id)
    assert job.state == SUCCEEDED
    return job.root_digest


def error_of(caught: pytest.ExceptionInfo[grpc.RpcError]) -> BlockferryError:
    return from_rpc_error(caught.value, address="the agent")


@pytest.mark.parametrize(
    "size",
    [
        pytest.param(0, id="empty"),
        pytest.param(1, id="one-byte"),
        pytest.param(511, id="below-a-block"),
        pytest.param(CHUNK_BYTES, id="one-chunk"),
        pytest.param(MIB + 7, id="a-chunk-and-7"),
        pytest.param(10 * MIB, id="10-MiB"),
        pytest.param(10 * MIB + 4097, id="10-MiB-and-4097"),
    ],
)
def test_copies_into_garbage(pair: Pair, tmp_path: Path, size: int) -> None:
    source = mixed(tmp_path / "source", size)
    sink = garbage(tmp_path / "sink", size)
    copy, receive = pair.transfer(source, sink)
    assert (copy.state, receive.state) == (SUCCEEDED, SUCCEEDED), (copy, receive)
    assert sink.read_bytes() == source.read_bytes()
    assert receive.verified
    assert copy.root_digest == receive.root_digest == digest_of(pair, source)
    assert digest_of(pair, sink) == copy.root_digest
    for progress in (copy.progress, receive.progress):
        assert progress.committed_bytes == progress.size_bytes == size
        assert progress.data_bytes + progress.zero_bytes == size
        assert progress.resumed_from_bytes == 0
    assert receive.progress.verified_bytes == size


@pytest.mark.parametrize("content", [b"\0", b"\xa5"], ids=["zeros", "data"])
def test_a_uniform_device_stays_uniform(pair: Pair, tmp_path: Path, content: bytes) -> None:
    source = tmp_path / "source"
    source.write_bytes(content * (5 * MIB))
    sink = garbage(tmp_path / "sink", 5 * MIB)
    copy, receive = pair.transfer(source, sink)
    assert (copy.state, receive.state) == (SUCCEEDED, SUCCEEDED)
    assert sink.read_bytes() == source.read_bytes()
    zero = 5 * MIB if content == b"\0" else 0
    assert copy.progress.zero_bytes == receive.progress.zero_bytes == zero
    assert copy.progress.sent_bytes == 5 * MIB - zero


@pytest.mark.parametrize("size", [0, MIB + 7, 4 * MIB], ids=["empty", "a-chunk-and-7", "4-MiB"])
def test_the_tail_of_a_larger_destination_is_not_touched(
    pair: Pair, tmp_path: Path, size: int
) -> None:
    source = mixed(tmp_path / "source", size)
    sink = garbage(tmp_path / "sink", size + 3 * MIB)
    before = sink.read_bytes()
    _, receive = pair.transfer(source, sink)
    assert receive.state == SUCCEEDED
    after = sink.read_bytes()
    assert after[:size] == source.read_bytes()
    assert after[size:] == before[size:]


def test_a_smaller_destination_is_refused_and_not_touched(pair: Pair, tmp_path: Path) -> None:
    sink = garbage(tmp_path / "sink", MIB)
    before = sink.read_bytes()
    with pytest.raises(grpc.RpcError) as caught:
        pair.receive(sink, MIB + 1)
    error = error_of(caught)
    assert error.reason == "DESTINATION_TOO_SMALL"
    assert error.meaning.exit_code == 12
    assert sink.read_bytes() == before


def test_a_source_of_another_size_is_refused(pair: Pair, tmp_path: Path) -> None:
    source = mixed(tmp_path / "source", MIB)
    spec = agent_pb2.CopySpec(
        transfer_id=MIGRATION_ID,
        device=agent_pb2.DeviceSelector(path=str(source)),
        size_bytes=2 * MIB,
        sink_addresses=[pair.sink.address],
    )
    with pytest.raises(grpc.RpcError) as caught:
        pair.source.start_job(agent_pb2.StartJobRequest(request_id="copy", copy=spec))
    assert error_of(caught).reason == "DEVICE_SIZE_DIFFERS"


@pytest.mark.parametrize(
    ("mode", "level"),
    [
        (agent_pb2.Compression.MODE_NONE, 0),
        (agent_pb2.Compression.MODE_ZSTD, -5),
        (agent_pb2.Compression.MODE_ZSTD, 9),
    ],
    ids=["none", "zstd:-5", "zstd:9"],
)
def test_every_compression_arrives(
    pair: Pair, tmp_path: Path, mode: agent_pb2.Compression.Mode.ValueType, level: int
) -> None:
    source = mixed(tmp_path / "source", 8 * MIB)
    sink = garbage(tmp_path / "sink", 8 * MIB)
    receive = pair.receive(sink, 8 * MIB)
    copy = pair.copy(source, compression=agent_pb2.Compression(mode=mode, level=level), channels=3)
    ended = pair.source.finish(copy.id)
    assert ended.state == SUCCEEDED
    assert pair.sink.finish(receive.id).state == SUCCEEDED
    assert sink.read_bytes() == source.read_bytes()
    assert ended.progress.sent_bytes == 4 * MIB
    if level:
        assert ended.progress.wire_bytes < 3 * MIB
    else:
        assert ended.progress.wire_bytes == 4 * MIB


def test_a_request_id_means_one_job(pair: Pair, tmp_path: Path) -> None:
    sink = garbage(tmp_path / "sink", MIB)
    first = pair.receive(sink, MIB, request_id="one")
    assert pair.receive(sink, MIB, request_id="one").id == first.id
    with pytest.raises(grpc.RpcError) as caught:
        pair.receive(sink, MIB, request_id="another")
    error = error_of(caught)
    assert error.reason == "BUSY"
    assert error.metadata["job_id"] == first.id
    pair.sink.stub().CancelJob(agent_pb2.CancelJobRequest(job_id=first.id), timeout=10)
    assert pair.sink.finish(first.id).state == agent_pb2.JOB_STATE_CANCELLED


def test_a_probe_measures(pair: Pair, tmp_path: Path) -> None:
    source = mixed(tmp_path / "source", 8 * MIB)
    spec = agent_pb2.ProbeSpec(device=agent_pb2.DeviceSelector(path=str(source)))
    job = pair.source.start_job(agent_pb2.StartJobRequest(request_id="probe", probe=spec))
    result = pair.source.finish(job.id).probe_result
    assert result.read_bytes_per_second > 0
    assert result.zero_ratio == pytest.approx(1 / 3)
    assert 0 < result.compressed_ratio < 0.6


def test_a_limit_holds_and_can_be_lifted(pair: Pair, tmp_path: Path) -> None:
    source = garbage(tmp_path / "source", 24 * MIB)
    sink = garbage(tmp_path / "sink", 24 * MIB)
    receive = pair.receive(sink, 24 * MIB)
    copy = pair.copy(source, limit=2 * MIB)
    early = pair.source.until(copy.id, lambda job: job.progress.committed_bytes >= 2 * MIB)
    assert early.progress.committed_bytes < 12 * MIB
    request = agent_pb2.UpdateJobRequest(job_id=copy.id, limit_bytes_per_second=0)
    pair.source.stub().UpdateJob(request, timeout=10)
    assert pair.source.finish(copy.id).state == SUCCEEDED
    assert pair.sink.finish(receive.id).verified
    assert sink.read_bytes() == source.read_bytes()


def test_a_paused_job_stands_still_and_goes_on(pair: Pair, tmp_path: Path) -> None:
    source = garbage(tmp_path / "source", 24 * MIB)
    sink = garbage(tmp_path / "sink", 24 * MIB)
    receive = pair.receive(sink, 24 * MIB)
    copy = pair.copy(source, limit=8 * MIB)
    stub = pair.source.stub()
    pair.source.until(copy.id, lambda job: job.progress.committed_bytes > 0)
    update = agent_pb2.UpdateJobRequest(job_id=copy.id, paused=True, limit_bytes_per_second=0)
    assert stub.UpdateJob(update, timeout=10).job.state == agent_pb2.JOB_STATE_PAUSED
    held = pair.source.until(
        copy.id, lambda job: job.progress.committed_bytes == job.progress.sent_bytes
    )
    assert held.progress.committed_bytes < 24 * MIB
    stub.UpdateJob(agent_pb2.UpdateJobRequest(job_id=copy.id, paused=False), timeout=10)
    assert pair.source.finish(copy.id).state == SUCCEEDED
    assert pair.sink.finish(receive.id).verified


def test_what_was_changed_behind_the_sinks_back_is_found(pair: Pair, tmp_path: Path) -> None:
    source = garbage(tmp_path / "source", 24 * MIB)
    sink = tmp_path / "sink"
    sink.write_bytes(bytes(24 * MIB))
    receive = pair.receive(sink, 24 * MIB)
    copy = pair.copy(source, limit=8 * MIB)
    pair.sink.until(receive.id, lambda job: job.progress.committed_bytes >= 5 * MIB)
    with sink.open("r+b") as file:
        file.seek(3 * MIB + 5)
        file.write(b"not what was sent")
    update = agent_pb2.UpdateJobRequest(job_id=copy.id, limit_bytes_per_second=0)
    pair.source.stub().UpdateJob(update, timeout=10)
    ended = pair.sink.finish(receive.id)
    assert ended.state == agent_pb2.JOB_STATE_FAILED
    assert ended.error.reason == "READBACK_MISMATCH"
    assert ended.error.metadata["ranges"] == f"[{3 * MIB},{4 * MIB})"
    assert not ended.verified


def test_manifests_travel(pair: Pair, tmp_path: Path) -> None:
    source = mixed(tmp_path / "source", 6 * MIB)
    pair.transfer(source, garbage(tmp_path / "sink", 6 * MIB))
    request = agent_pb2.ReadManifestRequest(transfer_id=MIGRATION_ID)
    mine = [run.digests for run in pair.source.stub().ReadManifest(request, timeout=10)]
    theirs = [run.digests for run in pair.sink.stub().ReadManifest(request, timeout=10)]
    assert mine == theirs
    assert len(b"".join(mine)) == 6 * 32
    runs = [
        agent_pb2.WriteManifestRequest(transfer_id="another-one", digests=digests)
        for digests in mine
    ]
    answer = pair.sink.stub().WriteManifest(iter(runs), timeout=10)
    assert answer.chunk_count == 6


@pytest.mark.parametrize(
    ("path", "reason", "exit_code"),
    [
        ("nothing-here", "DEVICE_NOT_FOUND", 11),
        (".", "DEVICE_IS_DIRECTORY", 12),
        ("/dev/null", "DEVICE_KIND", 12),
    ],
    ids=["missing", "directory", "character-device"],
)
def test_what_cannot_be_a_device_is_refused_at_once(
    pair: Pair, tmp_path: Path, path: str, reason: str, exit_code: int
) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        pair.receive(tmp_path / path, 0)
    error = error_of(caught)
    assert (error.reason, error.meaning.exit_code) == (reason, exit_code)


def test_a_job_without_work_is_refused(pair: Pair) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        pair.sink.start_job(agent_pb2.StartJobRequest(request_id="nothing"))
    assert error_of(caught).reason == "REQUEST_INVALID"
    with pytest.raises(grpc.RpcError) as caught:
        pair.sink.stub().GetJob(agent_pb2.GetJobRequest(job_id="nobody"), timeout=10)
    assert error_of(caught).reason == "JOB_NOT_FOUND"


def test_each_agent_has_its_role(pair: Pair, tmp_path: Path) -> None:
    spec = agent_pb2.ReceiveSpec(
        transfer_id=MIGRATION_ID, device=agent_pb2.DeviceSelector(path=str(tmp_path / "sink"))
    )
    garbage(tmp_path / "sink", 1)
    with pytest.raises(grpc.RpcError) as caught:
        pair.source.start_job(agent_pb2.StartJobRequest(request_id="wrong", receive=spec))
    assert error_of(caught).reason == "WRONG_ROLE"
