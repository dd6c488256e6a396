"""The controller's relay over sockets of this process: both directions, bounds, new beginnings."""

import itertools
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

from blockferry.errors import UnreachableError
from blockferry.limits import MIB, RELAY_STREAMS_MAX, SEGMENT_BYTES
from blockferry_controller.agents.relay import IDLE_STREAMS, Relay

Says = Callable[["Connection"], Iterator[bytes]]


def nothing(connection: "Connection") -> Iterator[bytes]:
    connection.closed.wait(20)
    yield from ()


@dataclass
class Source:
    """An agent whose side of each stream a test has written down."""

    says: Says = nothing
    error: UnreachableError | None = None
    lock: threading.Lock = field(default_factory=threading.Lock)
    lent: int = 0
    most: int = 0
    heard: bytes = b""

    def dial(self) -> Any:
        if self.error is not None:
            raise self.error
        return Connection(self)


@dataclass
class Connection:
    """One connection of the relay to it."""

    source: Source
    closed: threading.Event = field(default_factory=threading.Event)

    def relay(self, told: Iterator[bytes]) -> Iterator[bytes]:
        threading.Thread(target=self._hear, args=(told,), daemon=True).start()
        with self.source.lock:
            self.source.lent += 1
            self.source.most = max(self.source.most, self.source.lent)
        try:
            yield from self.source.says(self)
        finally:
            with self.source.lock:
                self.source.lent -= 1

    def _hear(self, told: Iterator[bytes]) -> None:
        for segment in told:
            self.source.heard += segment

    def close(self) -> None:
        self.closed.set()


def eventually(condition: Callable[[], bool]) -> None:
    until = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.005)


def once(says: Says) -> Says:
    """Only the first stream that is lent is used."""
    first = [says]

    def say(connection: "Connection") -> Iterator[bytes]:
        return (first.pop() if first else nothing)(connection)

    return say


def test_bytes_go_both_ways_and_an_end_is_passed_on() -> None:
    near, far = socket.socketpair()
    done = threading.Event()

    def say(_: Connection) -> Iterator[bytes]:
        yield b"hello"
        yield b" sink"
        done.wait(10)

    source = Source(once(say))
    relay = Relay(source.dial, lambda: near)
    with far:
        assert far.recv(10, socket.MSG_WAITALL) == b"hello sink"
        far.sendall(b"commit point")
        eventually(lambda: source.heard == b"commit point")
        done.set()
        assert far.recv(1) == b""
    relay.close()


def test_who_reads_slower_holds_who_writes() -> None:
    near, far = socket.socketpair()
    taken = 0

    def say(connection: Connection) -> Iterator[bytes]:
        nonlocal taken
        while not connection.closed.is_set():
            taken += 1
            yield bytes(SEGMENT_BYTES)

    source = Source(once(say))
    relay = Relay(source.dial, lambda: near)
    with far:
        eventually(lambda: taken > 0)
        time.sleep(0.5)
        assert taken * SEGMENT_BYTES < 4 * MIB
        relay.close()
        eventually(lambda: source.lent == 0)


def test_used_streams_are_replaced_up_to_a_bound() -> None:
    def say(connection: Connection) -> Iterator[bytes]:
        yield b"x"
        connection.closed.wait(20)

    source = Source(say)
    with ExitStack() as held:

        def sink() -> socket.socket:
            near, far = socket.socketpair()
            held.enter_context(far)
            return near

        relay = Relay(source.dial, sink)
        eventually(lambda: source.lent == RELAY_STREAMS_MAX)
        time.sleep(0.3)
        assert source.most == RELAY_STREAMS_MAX
        relay.close()
        eventually(lambda: source.lent == 0)


def test_no_more_than_a_few_streams_wait() -> None:
    source = Source()
    relay = Relay(source.dial, lambda: socket.socketpair()[0])
    eventually(lambda: source.lent == IDLE_STREAMS)
    time.sleep(0.2)
    assert source.most == IDLE_STREAMS
    relay.close()
    eventually(lambda: source.lent == 0)


def test_an_agent_that_is_away_is_tried_again_and_said() -> None:
    source = Source(error=UnreachableError("AGENT_UNREACHABLE", "the agent is away"))
    relay = Relay(source.dial, lambda: socket.socketpair()[0])
    eventually(lambda: relay.trouble == "the agent is away")
    source.error = None
    eventually(lambda: source.lent == IDLE_STREAMS)
    relay.close()


def test_a_sink_that_is_away_ends_the_stream_and_the_next_is_carried() -> None:
    near, far = socket.socketpair()
    calls = itertools.count()

    def sink() -> socket.socket:
        if next(calls) == 1:
            return near
        raise ConnectionRefusedError("refused")

    def say(connection: Connection) -> Iterator[bytes]:
        yield b"x"
        connection.closed.wait(20)

    source = Source(say)
    relay = Relay(source.dial, sink)
    with far:
        assert far.recv(1) == b"x"
        assert "refused" in relay.trouble
    relay.close()
