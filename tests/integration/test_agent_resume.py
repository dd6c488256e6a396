"""Agents that die, stop and come back: what is committed is not sent again."""

import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from blockferry.limits import MIB, WINDOW_BYTES
from blockferry.v1 import agent_pb2
from tests.agents import AgentProcess, Pair

SIZE = 96 * MIB
LIMIT = 24 * MIB
SUCCEEDED = agent_pb2.JOB_STATE_SUCCEEDED


@pytest.fixture(params=[False, True], ids=["push", "pull"])
def pair(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Pair]:
    with Pair(tmp_path / "agents", sink_dials=request.param) as pair:
        yield pair


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path]:
    source, sink = tmp_path / "source", tmp_path / "sink"
    dice = random.Random(4)
    source.write_bytes(b"".join(dice.randbytes(MIB) for _ in range(SIZE // MIB)))
    sink.write_bytes(dice.randbytes(MIB) * (SIZE // MIB))
    return source, sink


def unlimited(agent: AgentProcess, job_id: str) -> None:
    update = agent_pb2.UpdateJobRequest(job_id=job_id, limit_bytes_per_second=0)
    agent.stub().UpdateJob(update, timeout=10)


def test_a_killed_sink_goes_on_from_its_commit_point(pair: Pair, files: tuple[Path, Path]) -> None:
    source, sink = files
    receive = pair.receive(sink, SIZE)
    copy = pair.copy(source, limit=LIMIT)
    seen = pair.sink.until(receive.id, lambda job: job.progress.committed_bytes >= 24 * MIB)
    pair.sink.kill()
    pair.sink.start()
    receive = pair.receive(sink, SIZE)
    resumed = receive.progress.resumed_from_bytes
    assert resumed >= seen.progress.committed_bytes
    unlimited(pair.source, copy.id)
    copied, received = pair.source.finish(copy.id), pair.sink.finish(receive.id)
    assert (copied.state, received.state) == (SUCCEEDED, SUCCEEDED), (copied, received)
    assert received.verified
    assert received.progress.data_bytes == copied.progress.data_bytes == SIZE
    assert received.progress.sent_bytes == SIZE - resumed
    assert copied.progress.sent_bytes <= SIZE + WINDOW_BYTES
    assert copied.progress.reconnects >= 1
    assert sink.read_bytes() == source.read_bytes()


def test_a_killed_source_goes_on_from_the_commit_point(
    pair: Pair, files: tuple[Path, Path]
) -> None:
    source, sink = files
    receive = pair.receive(sink, SIZE)
    copy = pair.copy(source, limit=LIMIT)
    seen = pair.sink.until(receive.id, lambda job: job.progress.committed_bytes >= 24 * MIB)
    pair.source.kill()
    pair.source.start()
    copy = pair.copy(source)
    copied, received = pair.source.finish(copy.id), pair.sink.finish(receive.id)
    assert (copied.state, received.state) == (SUCCEEDED, SUCCEEDED), (copied, received)
    resumed = copied.progress.resumed_from_bytes
    assert resumed >= seen.progress.committed_bytes
    assert copied.progress.sent_bytes == SIZE - resumed
    assert copied.progress.data_bytes == received.progress.data_bytes == SIZE
    assert sink.read_bytes() == source.read_bytes()


def test_a_source_that_lost_its_manifest_reads_again_but_does_not_send(
    pair: Pair, files: tuple[Path, Path]
) -> None:
    source, sink = files
    receive = pair.receive(sink, SIZE)
    pair.copy(source, limit=LIMIT)
    pair.sink.until(receive.id, lambda job: job.progress.committed_bytes >= 24 * MIB)
    pair.source.kill()
    for manifest in pair.source.directory.rglob("manifest"):
        manifest.unlink()
    pair.source.start()
    copy = pair.copy(source)
    copied, received = pair.source.finish(copy.id), pair.sink.finish(receive.id)
    assert (copied.state, received.state) == (SUCCEEDED, SUCCEEDED), (copied, received)
    assert copied.progress.sent_bytes == SIZE - copied.progress.resumed_from_bytes
    assert copied.root_digest == received.root_digest


@pytest.mark.parametrize("side", ["source", "sink"])
def test_an_orderly_stop_reports_and_resumes(
    pair: Pair, files: tuple[Path, Path], side: str
) -> None:
    source, sink = files
    receive = pair.receive(sink, SIZE)
    copy = pair.copy(source, limit=LIMIT)
    pair.sink.until(receive.id, lambda job: job.progress.committed_bytes >= 16 * MIB)
    agent: AgentProcess = getattr(pair, side)
    assert agent.stop() == 0
    assert "JOB_STATE_CANCELLED" in agent.log()
    agent.start()
    if side == "sink":
        receive = pair.receive(sink, SIZE)
        assert receive.progress.resumed_from_bytes >= 16 * MIB
        unlimited(pair.source, copy.id)
    else:
        copy = pair.copy(source)
    assert pair.source.finish(copy.id).state == SUCCEEDED
    assert pair.sink.finish(receive.id).verified
    assert sink.read_bytes() == source.read_bytes()


def test_cancelled_jobs_end_and_resume(pair: Pair, files: tuple[Path, Path]) -> None:
    source, sink = files
    receive = pair.receive(sink, SIZE)
    copy = pair.copy(source, limit=LIMIT)
    pair.sink.until(receive.id, lambda job: job.progress.committed_bytes >= 8 * MIB)
    for agent, job in ((pair.source, copy), (pair.sink, receive)):
        agent.stub().CancelJob(agent_pb2.CancelJobRequest(job_id=job.id), timeout=10)
        assert agent.finish(job.id).state == agent_pb2.JOB_STATE_CANCELLED
    receive = pair.receive(sink, SIZE)
    assert receive.progress.resumed_from_bytes >= 8 * MIB
    copy = pair.copy(source)
    assert pair.source.finish(copy.id).state == SUCCEEDED
    assert pair.sink.finish(receive.id).verified


def test_another_source_starts_from_zero(pair: Pair, files: tuple[Path, Path]) -> None:
    source, sink = files
    receive = pair.receive(sink, SIZE)
    copy = pair.copy(source, limit=LIMIT)
    pair.sink.until(receive.id, lambda job: job.progress.committed_bytes >= 8 * MIB)
    for agent, job in ((pair.source, copy), (pair.sink, receive)):
        agent.stub().CancelJob(agent_pb2.CancelJobRequest(job_id=job.id), timeout=10)
        agent.finish(job.id)
    again = pair.receive(sink, SIZE, identity="another source")
    assert again.progress.resumed_from_bytes == 0


def test_a_source_that_changed_between_runs_is_found(pair: Pair, files: tuple[Path, Path]) -> None:
    source, sink = files
    receive = pair.receive(sink, SIZE)
    pair.copy(source, limit=LIMIT)
    pair.sink.until(receive.id, lambda job: job.progress.committed_bytes >= 16 * MIB)
    pair.source.kill()
    for manifest in pair.source.directory.rglob("manifest"):
        manifest.unlink()
    with source.open("r+b") as file:
        file.write(b"changed meanwhile")
    pair.source.start()
    copy = pair.copy(source)
    for job in (pair.source.finish(copy.id), pair.sink.finish(receive.id)):
        assert job.state == agent_pb2.JOB_STATE_FAILED
        assert job.error.reason == "ROOT_MISMATCH"
