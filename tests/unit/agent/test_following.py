import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from blockferry.errors import CancelledError, IntegrityError
from blockferry.limits import MIB
from blockferry_agent.following import Follower, is_due
from blockferry_agent.layout import pieces
from blockferry_agent.manifest import Manifest
from blockferry_agent.memory_device import MemoryDevice
from blockferry_agent.pipeline import Closed
from blockferry_agent.position import START, Position
from blockferry_agent.proof import Proof
from blockferry_agent.stageclock import StageClock
from blockferry_agent.standing import Standing
from blockferry_agent.survey import STAGES, page_aligned_buffer, read_digests
from tests.fakes.clock import ManualClock
from tests.layouts import make_memory

LAYOUT = "RD0R-D" * 8
SIZE = len(LAYOUT) * MIB
GIB = 1 << 30


@pytest.mark.parametrize(
    ("committed", "proven", "read_speed", "due"),
    [
        # 100 GiB at 100 MiB/s are 1024 s; a tenth of it, 102 s, may come after.
        (50 * GIB, 0, 1000 * MIB, False),
        (93 * GIB, 0, 1000 * MIB, False),
        (100 * GIB, 0, 990 * MIB, True),
        (100 * GIB, 1 * GIB, 1000 * MIB, False),
        (50 * GIB, 0, 150 * MIB, True),
        (50 * GIB, 0, 170 * MIB, False),
        (50 * GIB, 11 * GIB, 150 * MIB, False),
        (1 * GIB, 0, 50 * MIB, True),
    ],
    ids=[
        "fast-half-way", "fast-late", "fast-at-the-end", "nearly-done", "slow-half-way",
        "a-little-faster", "slow-but-begun", "slower-than-the-copy",
    ],
)  # fmt: skip
def test_reading_begins_as_late_as_will_do(
    committed: int, proven: int, read_speed: float, due: bool
) -> None:
    assert due is is_due(
        size_bytes=100 * GIB,
        copied_bytes=committed,
        committed_bytes=committed,
        proven_bytes=proven,
        elapsed_seconds=committed / (100 * MIB),
        read_bytes_per_second=read_speed,
    )


@dataclass
class Scene:
    """A follower on a clock that stands still: what is left to copy takes no time."""

    device: MemoryDevice
    standing: Standing
    proof: Proof
    follower: Follower

    def commit(self, offset_bytes: int) -> None:
        with self.standing.lock:
            self.standing.committed = Position(offset_bytes, offset_bytes, 0)
            self.standing.news.notify_all()

    def end(self) -> None:
        with self.standing.lock:
            self.standing.root = b"root"
            self.standing.news.notify_all()

    def await_offset(self, offset_bytes: int) -> None:
        until = threading.Event()
        for _ in range(2000):
            if self.proof.offset_bytes == offset_bytes:
                return
            until.wait(0.005)
        raise AssertionError(f"stands at {self.proof.offset_bytes}")


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    device = make_memory(LAYOUT)
    clock = StageClock(*STAGES)
    with Manifest.open(tmp_path / "manifest", SIZE) as manifest:
        for piece in pieces(device, 0, SIZE):
            digests, _ = read_digests(device, piece, page_aligned_buffer(), clock)
            manifest.put(piece.offset_bytes // MIB, digests)
        device.calls.clear()
        standing = Standing(START)
        proof = Proof(device, manifest, SIZE, threads=2, clock=clock)
        yield Scene(device, standing, proof, Follower(proof, standing, SIZE, ManualClock()))


def test_it_reads_up_to_the_commit_point_and_the_rest_at_the_end(scene: Scene) -> None:
    thread = threading.Thread(target=scene.follower.run)
    thread.start()
    scene.commit(20 * MIB)
    scene.await_offset(20 * MIB)
    scene.commit(33 * MIB)
    scene.await_offset(33 * MIB)
    scene.end()
    thread.join()
    assert scene.proof.offset_bytes == 33 * MIB
    root = scene.proof.finish()
    assert root == scene.proof._manifest.root()
    assert scene.proof.verified_bytes == SIZE
    data = SIZE // MIB - LAYOUT.count("-")
    sample = 8 - LAYOUT[:8].count("-")
    assert scene.device.calls["read"] == data + sample, "each chunk once, but for the sample"


def test_it_reads_nothing_while_a_flush_is_under_way(scene: Scene) -> None:
    scene.standing.flushing = True
    thread = threading.Thread(target=scene.follower.run)
    thread.start()
    scene.commit(20 * MIB)
    thread.join(0.5)
    assert thread.is_alive()
    assert scene.device.calls["read"] == 0
    scene.standing.flushing = False
    scene.await_offset(20 * MIB)
    scene.end()
    thread.join()


def test_a_medium_beyond_repair_ends_it_before_the_copy_does(scene: Scene) -> None:
    scene.device.write_at(0, b"x" * 18 * MIB)
    scene.commit(40 * MIB)
    with pytest.raises(IntegrityError) as caught:
        scene.follower.run()
    assert caught.value.metadata["differing_bytes"] == str(17 * MIB)
    assert scene.proof.differing == ()


def test_a_stopped_job_ends_it(scene: Scene) -> None:
    scene.commit(20 * MIB)
    scene.standing.stop(CancelledError("CANCELLED", "enough"))
    with pytest.raises(Closed):
        scene.follower.run()
    assert scene.device.calls["read"] == 0
