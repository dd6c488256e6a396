"""`--limit` between two real agents: what the source sends in ten seconds, to 3 %."""

import os
import random
import time
from pathlib import Path

import pytest

from blockferry.limits import MIB
from blockferry.v1 import agent_pb2
from tests.agents import Pair


class Meter:
    """Payload that a copy has sent, and when. Incompressible: payload is wire."""

    def __init__(self, pair: Pair, job_id: str) -> None:
        self._stub = pair.source.stub()
        self._job_id = job_id

    def sent(self) -> tuple[float, int]:
        job = self._stub.GetJob(agent_pb2.GetJobRequest(job_id=self._job_id), timeout=10).job
        assert job.state == agent_pb2.JOB_STATE_RUNNING, job
        return time.monotonic(), job.progress.wire_bytes

    def next_frame(self) -> tuple[float, int]:
        """The moment a frame passes: counting from one to another has no remainder."""
        first = self.sent()
        while (now := self.sent())[1] == first[1]:
            time.sleep(0.002)
        return now

    def rate(self, seconds: float) -> float:
        began, before = self.next_frame()
        time.sleep(seconds)
        ended, after = self.next_frame()
        return (after - before) / (ended - began)

    def change(self, limit_bytes_per_second: int) -> None:
        request = agent_pb2.UpdateJobRequest(
            job_id=self._job_id, limit_bytes_per_second=limit_bytes_per_second
        )
        self._stub.UpdateJob(request, timeout=10)


def noise(directory: Path, size: int) -> None:
    """What cannot be compressed, and a place for it. Repeated after 8 MiB: quick to make."""
    piece = random.Random(3).randbytes(8 * MIB)
    (directory / "source.img").write_bytes(piece * (size // len(piece)))
    (directory / "sink.img").write_bytes(b"")
    os.truncate(directory / "sink.img", size)


@pytest.mark.parametrize("channels", [1, 4])
def test_a_limit_holds_to_three_percent_and_changes_both_ways(
    tmp_path: Path, channels: int
) -> None:
    size = 400 * MIB
    noise(tmp_path, size)
    with Pair(tmp_path) as pair:
        pair.receive(tmp_path / "sink.img", size, verify=agent_pb2.VERIFY_NONE)
        copy = pair.copy(tmp_path / "source.img", limit=8 * MIB, channels=channels)
        meter = Meter(pair, copy.id)
        for limit, seconds in ((8 * MIB, 10.0), (16 * MIB, 5.0), (3 * MIB, 5.0)):
            meter.change(limit)
            meter.next_frame()
            assert meter.rate(seconds) == pytest.approx(limit, rel=0.03)


def test_below_a_frame_a_second_it_still_holds_and_nothing_breaks(tmp_path: Path) -> None:
    """A frame that waits for its turn is not one that the sink owes."""
    noise(tmp_path, 8 * MIB)
    with Pair(tmp_path) as pair:
        pair.receive(tmp_path / "sink.img", 8 * MIB, verify=agent_pb2.VERIFY_NONE)
        copy = pair.copy(tmp_path / "source.img", limit=MIB // 2)
        assert Meter(pair, copy.id).rate(3.0) == pytest.approx(MIB // 2, rel=0.03)
