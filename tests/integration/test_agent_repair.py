"""A repair between two agents: on a real block device, in both directions of dialling."""

import random
from collections.abc import Callable, Iterator
from pathlib import Path

import grpc
import pytest

from blockferry.limits import MIB
from blockferry.v1 import agent_pb2
from blockferry.wire import from_rpc_error
from tests.agents import Pair
from tests.loops import loop_device

SUCCEEDED, FAILED = agent_pb2.JOB_STATE_SUCCEEDED, agent_pb2.JOB_STATE_FAILED
SIZE = 20 * MIB + 4096
SPOILED = [(3 * MIB, 5 * MIB), (20 * MIB, SIZE)]


@pytest.fixture(params=[False, True], ids=["push", "pull"])
def pair(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Pair]:
    with Pair(tmp_path / "agents", sink_dials=request.param) as pair:
        yield pair


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "source"
    noise = random.Random(8).randbytes(SIZE)
    # Zeros where the medium is spoiled, too: a repair produces them.
    path.write_bytes(noise[: 4 * MIB] + bytes(2 * MIB) + noise[6 * MIB :])
    return path


@pytest.fixture
def medium(tmp_path: Path) -> Path:
    path = tmp_path / "medium"
    path.write_bytes(random.Random(9).randbytes(SIZE))
    return path


def spoil(medium: Path) -> None:
    """Flip one bit in each of three chunks, past the loop device's back."""
    with medium.open("r+b") as file:
        for place in (3 * MIB + 9, 4 * MIB + 512, SIZE - 1):
            file.seek(place)
            (byte,) = file.read(1)
            file.seek(place)
            file.write(bytes([byte ^ 4]))


def named(job: agent_pb2.Job) -> list[tuple[int, int]]:
    return [(one.start_bytes, one.end_bytes) for one in job.differing]


@pytest.mark.root
@pytest.mark.parametrize("sector", ["512", "4096"])
def test_flipped_bits_are_named_and_repaired(
    pair: Pair, source: Path, medium: Path, sector: str
) -> None:
    with loop_device(medium, "--sector-size", sector) as device:
        copied, received = pair.transfer(source, device)
        assert received.verified
        spoil(medium)
        # As after a restart: everything is committed, and read back anew.
        _, spoiled = pair.transfer(source, device)
        assert (spoiled.state, spoiled.error.reason) == (FAILED, "READBACK_MISMATCH")
        assert named(spoiled) == SPOILED
        assert spoiled.progress.committed_bytes == SIZE

        receive = pair.receive(device, SIZE, only=spoiled.differing, verify=agent_pb2.VERIFY_WIRE)
        copy = pair.copy(source, only=spoiled.differing)
        assert pair.source.finish(copy.id).state == SUCCEEDED
        repaired = pair.sink.finish(receive.id)
        assert repaired.state == SUCCEEDED
        assert not repaired.verified, "a repair proves nothing"
        assert repaired.progress.sent_bytes == MIB + 4096, "zeros travel as such"

        copied, received = pair.transfer(source, device)
        assert received.verified
        assert received.progress.resumed_from_bytes == SIZE
        assert copied.progress.sent_bytes == 0
        assert copied.root_digest == received.root_digest
        assert medium.read_bytes() == source.read_bytes()


def test_a_source_that_changed_repairs_nothing(pair: Pair, source: Path, medium: Path) -> None:
    pair.transfer(source, medium)
    spoil(medium)
    _, spoiled = pair.transfer(source, medium)
    with source.open("r+b") as file:
        file.seek(20 * MIB)
        file.write(b"changed")
    before = medium.read_bytes()

    receive = pair.receive(medium, SIZE, only=spoiled.differing)
    copy = pair.source.finish(pair.copy(source, only=spoiled.differing).id)

    assert (copy.state, copy.error.reason) == (FAILED, "SOURCE_CHANGED")
    assert copy.error.metadata["ranges"] == f"[{20 * MIB},{SIZE})"
    pair.sink.stub().CancelJob(agent_pb2.CancelJobRequest(job_id=receive.id), timeout=10)
    pair.sink.finish(receive.id)
    assert medium.read_bytes()[20 * MIB :] == before[20 * MIB :]


@pytest.mark.parametrize(
    ("start", "end"), [(5, MIB), (0, SIZE + MIB), (MIB, MIB)], ids=["off-grid", "beyond", "empty"]
)
def test_ranges_that_cannot_be_are_refused_at_once(
    pair: Pair, source: Path, medium: Path, start: int, end: int
) -> None:
    only = [agent_pb2.ByteRange(start_bytes=start, end_bytes=end)]
    starts: list[Callable[[], object]] = [
        lambda: pair.receive(medium, SIZE, only=only),
        lambda: pair.copy(source, only=only),
    ]
    for start_job in starts:
        with pytest.raises(grpc.RpcError) as caught:
            start_job()
        assert from_rpc_error(caught.value, address="the agent").reason == "RANGES_INVALID"


def test_what_never_came_cannot_be_repaired(pair: Pair, source: Path) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        pair.copy(source, only=[agent_pb2.ByteRange(start_bytes=0, end_bytes=MIB)])
    assert from_rpc_error(caught.value, address="the agent").reason == "MANIFEST_INCOMPLETE"
