import contextlib
import itertools
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from blockferry.errors import BlockferryError, CancelledError, DeadlineError
from blockferry.limits import CHUNK_BYTES, WINDOW_BYTES
from blockferry.v1 import agent_pb2
from blockferry.v1.transfer_pb2 import PushFinish, PushHello
from blockferry_agent.chunk import digest
from blockferry_agent.codec import Encoding
from blockferry_agent.frames import Frame, Message
from blockferry_agent.journal import Journal
from blockferry_agent.ledger import Ledger, TransferIdentity
from blockferry_agent.manifest import Manifest, RootHasher
from blockferry_agent.memory_device import MemoryDevice
from blockferry_agent.pipeline import ClosableQueue
from blockferry_agent.ports import Clock
from blockferry_agent.server import SystemClock
from blockferry_agent.sink import ReceiveFlow, ReceivePlan

C = CHUNK_BYTES
CHUNKS = [b"a" * C, b"b" * C, b"c" * C, b"d" * 9]
SIZE = 3 * C + 9
ROOT = RootHasher(SIZE)
ROOT.update(b"".join(digest(chunk) for chunk in CHUNKS))


class Sink:
    """A receive job in a thread, fed by hand."""

    def __init__(
        self, state: Path, *, dead_seconds: float = 30.0, clock: Clock | None = None
    ) -> None:
        self.device = MemoryDevice(SIZE, garbage_seed=1, block_bytes=1)
        self.clock = clock or SystemClock()
        ledger = Ledger(
            TransferIdentity("source", "sink", SIZE, "boot"),
            Journal.open(state / "journal"),
            Manifest.open(state / "manifest", SIZE),
            self.clock,
            known_committed_bytes=0,
        )
        plan = ReceivePlan(
            transfer_id="m-1",
            size_bytes=SIZE,
            check_digests=True,
            read_back=True,
            dead_seconds=dead_seconds,
            threads=2,
        )
        self.flow = ReceiveFlow(plan, self.device, ledger, self.clock)
        self.error: BlockferryError | None = None
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        try:
            self.flow.run()
        except BlockferryError as error:
            self.error = error

    def join(self) -> agent_pb2.Job:
        self._thread.join()
        job = agent_pb2.Job()
        self.flow.report(job)
        return job

    def cancel(self) -> agent_pb2.Job:
        self.flow.cancel(CancelledError("CANCELLED", "enough"))
        return self.join()


@pytest.fixture
def sink(tmp_path: Path) -> Iterator[Sink]:
    made = Sink(tmp_path)
    yield made
    made.cancel()


def hello(attempt: int = 1, channel: int = 0, channels: int = 1, start: int = 0) -> PushHello:
    return PushHello(
        transfer_id="m-1",
        attempt=attempt,
        channel=channel,
        channels=channels,
        start_bytes=start,
    )


def frame(index: int) -> Frame:
    chunk = CHUNKS[index]
    return Frame(index * C, len(chunk), Encoding.RAW, memoryview(chunk), digest(chunk))


FINISH = PushFinish(root_digest=ROOT.digest())
ALL: list[Message] = [frame(0), frame(1), frame(2), frame(3), FINISH]


def commit_points(sink: Sink, first: PushHello, messages: Iterator[Message]) -> list[int]:
    """What a channel hears, the welcome first."""
    return [
        answer.welcome.committed_bytes
        if answer.HasField("welcome")
        else answer.commit_point.committed_bytes
        for answer in sink.flow.push(first, messages)
    ]


def refusal(sink: Sink, first: PushHello, messages: Iterator[Message]) -> str:
    with pytest.raises(BlockferryError) as caught:
        commit_points(sink, first, messages)
    return caught.value.reason


def test_a_channel_hears_of_every_commit(sink: Sink) -> None:
    heard = commit_points(sink, hello(), iter(ALL))
    assert heard[0] == 0
    assert heard[-1] == SIZE
    assert heard == sorted(heard)
    job = sink.join()
    assert sink.device.content == b"".join(CHUNKS)
    assert job.verified
    assert job.root_digest == ROOT.digest()
    assert job.progress.sent_bytes == job.progress.wire_bytes == SIZE


def test_the_finish_is_answered_again_after_the_end(sink: Sink) -> None:
    commit_points(sink, hello(), iter(ALL))
    sink.join()
    assert sink.flow.write_state().committed_bytes == SIZE
    assert commit_points(sink, hello(2, start=SIZE), iter([FINISH])) == [SIZE]
    assert commit_points(sink, hello(3), iter(ALL)) == [SIZE]
    other = PushFinish(root_digest=bytes(32))
    assert refusal(sink, hello(4, start=SIZE), iter([other])) == "ROOT_MISMATCH"


@pytest.mark.parametrize(
    ("messages", "reason"),
    [
        ([frame(0), frame(2)], "STREAM_BROKEN"),
        ([frame(0), frame(0)], "FRAME_OVERLAP"),
        ([Frame(7, C, 1, memoryview(CHUNKS[0]), bytes(32))], "FRAME_OUT_OF_RANGE"),
        ([Frame(0, C, 1, memoryview(CHUNKS[0]), bytes(32))], "DIGEST_MISMATCH"),
        ([hello()], "STREAM_INVALID"),
    ],
    ids=["no-finish", "twice", "off-the-grid", "wrong-digest", "second-hello"],
)
def test_a_faulty_attempt_ends_and_the_next_one_succeeds(
    sink: Sink, messages: list[Message], reason: str
) -> None:
    assert refusal(sink, hello(), iter(messages)) == reason
    start = sink.flow.write_state().committed_bytes
    rest = [message for message in ALL if getattr(message, "offset_bytes", start) >= start]
    assert commit_points(sink, hello(2, start=start), iter(rest))[-1] == SIZE
    assert sink.join().verified


def test_what_lies_below_the_commit_point_is_not_written_again(sink: Sink) -> None:
    refusal(sink, hello(), iter([frame(0), frame(1)]))
    while sink.flow.write_state().committed_bytes < 2 * C:
        pass
    writes = sink.device.calls["write"]
    commit_points(sink, hello(2), iter(ALL))
    assert sink.device.calls["write"] == writes + 2
    assert sink.join().verified


@pytest.mark.parametrize(
    ("first", "reason"),
    [
        (hello(start=C), "START_MISMATCH"),
        (hello(start=5), "START_MISMATCH"),
        (hello(start=-C), "START_MISMATCH"),
        (hello(channel=1), "STREAM_INVALID"),
        (hello(channels=0), "STREAM_INVALID"),
        (hello(channels=17), "STREAM_INVALID"),
    ],
    ids=["ahead", "off-the-grid", "negative", "no-such-channel", "none", "too-many"],
)
def test_a_hello_that_cannot_be(sink: Sink, first: PushHello, reason: str) -> None:
    assert refusal(sink, first, iter([])) == reason


def held_open(queue: ClosableQueue[Message]) -> Iterator[Message]:
    return iter(queue)


def test_a_higher_attempt_takes_over_and_a_lower_one_is_stale(sink: Sink) -> None:
    queue: ClosableQueue[Message] = ClosableQueue(4)
    older = sink.flow.push(hello(5), held_open(queue))
    next(older)
    assert refusal(sink, hello(4), iter([])) == "ATTEMPT_STALE"
    assert refusal(sink, hello(5), iter([])) == "ATTEMPT_STALE"
    assert commit_points(sink, hello(6), iter(ALL))[-1] == SIZE
    with pytest.raises(BlockferryError) as caught:
        list(older)
    assert caught.value.reason == "SUPERSEDED"
    queue.close()


def test_only_channel_0_may_finish(sink: Sink) -> None:
    queue: ClosableQueue[Message] = ClosableQueue(4)
    zero = sink.flow.push(hello(channels=2), held_open(queue))
    next(zero)
    assert refusal(sink, hello(channel=1, channels=2), iter([FINISH])) == "STREAM_INVALID"
    queue.close()


def test_two_channels_share_the_work(sink: Sink) -> None:
    one = threading.Thread(
        target=commit_points,
        args=(sink, hello(channel=1, channels=2), iter([frame(1), frame(3)])),
    )
    one.start()
    assert commit_points(sink, hello(channels=2), iter([frame(0), frame(2), FINISH]))[-1] == SIZE
    one.join()
    assert sink.join().verified


def test_a_cancelled_job_says_so_to_its_source(sink: Sink) -> None:
    queue: ClosableQueue[Message] = ClosableQueue(4)
    stream = sink.flow.push(hello(), held_open(queue))
    next(stream)
    queue.put(frame(0))
    job = sink.cancel()
    assert isinstance(sink.error, CancelledError)
    with pytest.raises(CancelledError):
        list(stream)
    with pytest.raises(CancelledError):
        sink.flow.write_state()
    assert refusal(sink, hello(2), iter([])) == "CANCELLED"
    assert not job.verified
    queue.close()


def test_what_was_written_is_committed_when_the_job_stops(sink: Sink) -> None:
    queue: ClosableQueue[Message] = ClosableQueue(4)
    stream = sink.flow.push(hello(), held_open(queue))
    next(stream)
    queue.put(frame(0))
    while not sink.device.calls["write"]:
        pass
    # The write in hand counts when it was done before the stop, and only if flushed.
    committed = sink.cancel().progress.committed_bytes
    assert committed in (0, C)
    assert (committed == C) == (sink.device.calls["flush"] >= 1)
    queue.close()


def test_silence_ends_the_job(tmp_path: Path) -> None:
    class Hurrying:
        """Each look at the clock is a second later."""

        def __init__(self) -> None:
            self._ticks = itertools.count()

        def monotonic(self) -> float:
            return float(next(self._ticks))

        def sleep(self, seconds: float) -> None:
            raise AssertionError

    quiet = Sink(tmp_path, dead_seconds=2.0, clock=Hurrying())
    quiet.join()
    assert isinstance(quiet.error, DeadlineError)
    assert quiet.error.reason == "SOURCE_SILENT"


frames = st.builds(
    Frame,
    st.one_of(st.integers(-C, 5 * C), st.sampled_from([0, C, 2 * C, 3 * C])),
    st.one_of(st.integers(-1, 2 * C), st.sampled_from([C, 2 * C, 9])),
    st.integers(0, 4),
    st.binary(max_size=40).map(memoryview),
    st.sampled_from([b"", bytes(32), digest(bytes(9))]),
)


@settings(max_examples=30)
@given(st.lists(frames, max_size=6))
def test_any_frames_are_legal_writes_or_errors_of_ours(junk: list[Message]) -> None:
    with tempfile.TemporaryDirectory() as state:
        sink = Sink(Path(state))
        before = sink.device.content
        with contextlib.suppress(BlockferryError):
            commit_points(sink, hello(), iter(junk))
        job = sink.cancel()
        done = job.progress.committed_bytes
        assert sink.device.content[:done] == bytes(done)
        assert sink.device.content[3 * C + 9 :] == before[3 * C + 9 :]


def test_the_window_is_told(sink: Sink) -> None:
    state = sink.flow.write_state()
    assert (state.window_bytes, state.chunk_bytes, state.size_bytes) == (WINDOW_BYTES, C, SIZE)
