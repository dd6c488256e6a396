"""Agents that are left alone end by themselves, and never while they are needed."""

import random
from pathlib import Path

import grpc
import pytest

from blockferry.limits import MIB
from blockferry.v1 import agent_pb2
from tests.agents import Pair

DEAD_MAN_SECONDS = 4
WAIT_SECONDS = 40.0
SIZE = 24 * MIB


def begun(pair: Pair, tmp_path: Path) -> agent_pb2.Job:
    """A copy of which something is committed, by a source that is soon alone."""
    source = tmp_path / "source.img"
    source.write_bytes(random.Random(7).randbytes(SIZE))
    (tmp_path / "sink.img").write_bytes(bytes(SIZE))
    pair.receive(tmp_path / "sink.img", SIZE)
    # Only now: on a busy machine the sink takes longer than that to start.
    pair.source.stop()
    pair.source.options = {"dead_man_seconds": DEAD_MAN_SECONDS}
    pair.source.start()
    copy = pair.copy(source, limit=3 * MIB)
    pair.source.until(copy.id, lambda job: job.progress.committed_bytes > 0)
    return copy


@pytest.mark.parametrize("sink_dials", [False, True], ids=["push", "pull"])
def test_a_held_source_is_not_kept_alive_by_its_peer(tmp_path: Path, sink_dials: bool) -> None:
    with Pair(tmp_path, sink_dials=sink_dials) as pair:
        copy = begun(pair, tmp_path)
        update = agent_pb2.UpdateJobRequest(job_id=copy.id, paused=True)
        pair.source.stub().UpdateJob(update, timeout=10)
        # A controller that watches keeps it, however long it is held.
        watch = pair.source.watch(copy.id, timeout=DEAD_MAN_SECONDS * 1.6)
        with pytest.raises(grpc.RpcError, match="DEADLINE_EXCEEDED"):
            list(watch)
        assert pair.source.process is not None
        assert pair.source.process.poll() is None, pair.source.log()

        pair.source.channels.close()
        assert pair.source.process.wait(WAIT_SECONDS) == 0
        assert "neither controller nor peer was heard" in pair.source.log()


def test_a_pair_at_work_needs_no_controller(tmp_path: Path) -> None:
    with Pair(tmp_path) as pair:
        begun(pair, tmp_path)
        pair.source.channels.close()
        assert pair.source.process is not None
        assert pair.source.process.wait(WAIT_SECONDS) == 0
        assert "SUCCEEDED" in pair.source.log()
    assert (tmp_path / "sink.img").read_bytes() == (tmp_path / "source.img").read_bytes()
