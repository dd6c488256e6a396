"""Where a source waits for a sink that dials: which channels count, and for how long."""

import threading
from collections.abc import Iterator

import pytest

from blockferry.errors import BlockferryError, BusyError, DeviceError, UnreachableError
from blockferry.v1 import transfer_pb2
from blockferry.wire import to_proto
from blockferry_agent.pipeline import Closed, StageGroup
from blockferry_agent.pull import Berth, Dock

STOP = threading.Event()


def join(
    dock: Dock,
    dial: int,
    channel: int = 0,
    channels: int = 1,
    requests: Iterator[transfer_pb2.PullRequest] | None = None,
) -> Berth:
    state = transfer_pb2.GetWriteStateResponse(committed_bytes=dial)
    hello = transfer_pb2.PullHello(dial=dial, channel=channel, channels=channels, state=state)
    return dock.join(hello, requests or iter(()))


def test_a_dial_is_taken_when_all_its_channels_are_here() -> None:
    dock = Dock()
    join(dock, 1, 1, 2)
    with pytest.raises(UnreachableError) as caught:
        dock.take(0.0, STOP)
    assert caught.value.reason == "SINK_AWAY"
    join(dock, 1, 0, 2)
    assert dock.take(0.0, STOP).write_state("any").committed_bytes == 1


def test_a_dial_is_good_for_one_attempt() -> None:
    dock = Dock()
    join(dock, 1)
    dock.take(0.0, STOP)
    with pytest.raises(UnreachableError):
        dock.take(0.0, STOP)


def test_a_newer_dial_ends_the_older() -> None:
    dock = Dock()
    older = join(dock, 4)
    link = dock.take(0.0, STOP)
    join(dock, 5)
    with pytest.raises(UnreachableError) as caught:
        list(older.outgoing())
    assert caught.value.reason == "STREAM_BROKEN"
    with pytest.raises(UnreachableError):
        link.write_state("any")
    assert dock.take(0.0, STOP).write_state("any").committed_bytes == 5


@pytest.mark.parametrize("dial", [3, 4], ids=["older", "the same twice"])
def test_a_stale_dial_is_told_the_number(dial: int) -> None:
    dock = Dock()
    join(dock, 4)
    with pytest.raises(BusyError) as caught:
        join(dock, dial)
    assert (caught.value.reason, caught.value.metadata["dial"]) == ("DIAL_STALE", "4")


def test_a_dial_that_was_lost_is_not_taken() -> None:
    dock = Dock()
    join(dock, 1, 0, 2).lost()
    join(dock, 1, 1, 2)
    with pytest.raises(UnreachableError):
        dock.take(0.0, STOP)


@pytest.mark.parametrize(
    ("channel", "channels"), [(0, 0), (-1, 2), (2, 2), (0, 17)], ids=["none", "-1", "2", "17"]
)
def test_a_channel_that_cannot_be_is_refused(channel: int, channels: int) -> None:
    with pytest.raises(BlockferryError) as caught:
        join(Dock(), 1, channel, channels)
    assert caught.value.reason == "STREAM_INVALID"


def test_stopping_ends_the_wait() -> None:
    stop = threading.Event()
    stop.set()
    with pytest.raises(UnreachableError):
        Dock().take(60.0, stop)


class _Requests(Iterator[transfer_pb2.PullRequest]):
    """A request stream that ends, when released, with an exception."""

    def __init__(self, end: Exception) -> None:
        self.end = end
        self.released = threading.Event()
        self.released.set()

    def __next__(self) -> transfer_pb2.PullRequest:
        self.released.wait(10)
        raise self.end


def opened(*requests: transfer_pb2.PullRequest) -> tuple[StageGroup, Berth, list[int]]:
    """A channel over which `requests` have come, and the commit points heard."""
    dock, group, heard = Dock(), StageGroup("test"), list[int]()
    berth = join(dock, 1, requests=iter(requests))
    link = dock.take(0.0, STOP)
    link.open(transfer_pb2.PushHello(attempt=7), group, heard.append)
    return group, berth, heard


def test_commit_points_are_heard_and_the_end_is_good() -> None:
    point = transfer_pb2.PullRequest(commit_point=transfer_pb2.CommitPoint(committed_bytes=9))
    group, berth, heard = opened(point)
    group.join()
    assert heard == [9]
    assert (berth.ended, berth.error) == (True, None)


def test_the_sinks_error_is_the_attempts() -> None:
    error = DeviceError("DEVICE_IO_WRITE", "the medium is broken")
    group, berth, _ = opened(transfer_pb2.PullRequest(error=to_proto(error)))
    with pytest.raises(DeviceError) as caught:
        group.join()
    assert caught.value.reason == "DEVICE_IO_WRITE"
    with pytest.raises(DeviceError):
        list(berth.outgoing())


def test_a_channel_that_breaks_fails_the_attempt() -> None:
    dock, group = Dock(), StageGroup("test")
    join(dock, 1, requests=_Requests(RuntimeError("as gRPC does")))
    link = dock.take(0.0, STOP)
    link.open(transfer_pb2.PushHello(), group, lambda _: None)
    with pytest.raises(UnreachableError) as caught:
        group.join()
    assert caught.value.reason == "STREAM_BROKEN"
    with pytest.raises(Closed):
        link.send(b"frame")


def test_the_source_says_hello_first_and_finishes_last() -> None:
    dock, group = Dock(), StageGroup("test")
    requests = _Requests(StopIteration())
    requests.released.clear()
    berth = join(dock, 1, requests=requests)
    link = dock.take(0.0, STOP)
    link.open(transfer_pb2.PushHello(attempt=7), group, lambda _: None)
    assert link.send(b"frame") in {True, False}
    link.finish(b"r" * 32)
    said = berth.outgoing()
    hello = transfer_pb2.PullResponse.FromString(next(said))
    assert (hello.hello.attempt, hello.hello.channels) == (7, 1)
    assert next(said) == b"frame"
    assert transfer_pb2.PullResponse.FromString(next(said)).finish.root_digest == b"r" * 32
    requests.released.set()
    assert list(said) == []
    group.join()
