"""The relay: this process carries the connections of the source to the sink.

    source agent ── stream of Relay ──► controller ── TCP ──► sink agent

Rules:
* What is carried is TLS between the two agents: nothing is decoded here, nothing
  can be changed unnoticed, and no identity is needed that could push or pull.
* Each stream carries one connection. IDLE_STREAMS wait at any time, and there
  are never more than RELAY_STREAMS_MAX.
* Nothing is stored: a few segments of each direction are in memory, and who reads
  slower holds who writes.
* What breaks is begun anew, with growing pauses, until the relay is closed.
"""

import contextlib
import socket
import threading
from collections.abc import Callable, Iterator
from typing import Final

from blockferry import splice
from blockferry.errors import BlockferryError
from blockferry.limits import RELAY_STREAMS_MAX, SEGMENT_BYTES
from blockferry.standby import Standby
from blockferry_controller.agents.port import Agent

IDLE_STREAMS: Final = 4
"""Streams that wait: as many channels as agents choose by themselves open at once."""


class Relay:
    """Carries until it is closed. Thread-safe.

    Args:
        dial_source: Opens a connection to the source agent of its own; owned and
            closed by the relay.
        dial_sink: Opens a TCP connection to the sink's port, or raises OSError.
    """

    def __init__(
        self, dial_source: Callable[[], Agent], dial_sink: Callable[[], socket.socket]
    ) -> None:
        self._dial_source = dial_source
        self._dial_sink = dial_sink
        self._lock = threading.Lock()
        self._streams: set[Stream] = set()
        self._trouble = ""
        self._standby = Standby(
            self._carry, idle=IDLE_STREAMS, most=RELAY_STREAMS_MAX, name="relay"
        )
        self._standby.start()

    @property
    def trouble(self) -> str:
        """Why a stream last ended early, for people; empty when none has."""
        return self._trouble

    def close(self) -> None:
        """Break off what is carried. Idempotent."""
        self._standby.stop()
        with self._lock:
            streams = [*self._streams]
        for stream in streams:
            stream.close()

    def _carry(self, taken: Callable[[], None]) -> None:
        stream = Stream()
        try:
            with contextlib.closing(self._dial_source()) as agent:
                if not self._hold(stream, agent):
                    return
                for segment in agent.relay(stream.told()):
                    if not stream.connected:
                        taken()
                        stream.connect(self._dial_sink())
                    stream.tell(segment)
        except (BlockferryError, OSError) as error:
            self._trouble = str(error)
        finally:
            stream.close()
            with self._lock:
                self._streams.discard(stream)

    def _hold(self, stream: "Stream", agent: Agent) -> bool:
        with self._lock:
            stream.closes(agent)
            self._streams.add(stream)
        # `close` has seen it, or we see that it was called.
        return not self._standby.stopped


class Stream:
    """One stream of the source's agent, and the connection to the sink behind it."""

    def __init__(self) -> None:
        self._agent: Agent | None = None
        self._changed = threading.Condition()
        self._sink: socket.socket | None = None
        self._closed = False

    @property
    def connected(self) -> bool:
        """Whether there is a connection to the sink."""
        return self._sink is not None

    def closes(self, agent: Agent) -> None:
        """Have `close` close `agent`, too."""
        self._agent = agent

    def connect(self, sink: socket.socket) -> None:
        """Carry to and from `sink`, which is closed in the end."""
        with self._changed:
            self._sink = sink
            self._changed.notify_all()

    def told(self) -> Iterator[bytes]:
        """What the sink says; gRPC reads it in a thread of its own."""
        with self._changed:
            self._changed.wait_for(lambda: self._sink is not None or self._closed)
            sink = self._sink
        if sink is not None:
            with contextlib.suppress(OSError):
                while segment := sink.recv(SEGMENT_BYTES):
                    yield segment

    def tell(self, segment: bytes) -> None:
        """Give the sink what the source said. Raises OSError."""
        if self._sink is not None:
            self._sink.sendall(segment)

    def close(self) -> None:
        """Break it off. Idempotent; any thread."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        if self._sink is not None:
            splice.end(self._sink)
            self._sink.close()
        if self._agent is not None:
            self._agent.close()
