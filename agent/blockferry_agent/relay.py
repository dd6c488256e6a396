"""The agent's dials to its peer, where the controller carries them.

Rules:
* The controller lends streams; each carries one connection, the next that this
  agent opens to RELAY_ADDRESS. There is never a stream without a controller.
* A connection without a stream is ended after WAIT_SECONDS: its dialler comes again.
* What is carried is TLS from agent to agent. Nothing here can be trusted with
  more, and nothing here needs to be.
"""

import contextlib
import os
import socket
import threading
from collections import deque
from collections.abc import Callable, Iterator
from typing import Final

from blockferry import splice
from blockferry.errors import UnreachableError
from blockferry.limits import RELAY_ADDRESS, RELAY_STREAMS_MAX, SEGMENT_BYTES

WAIT_SECONDS: Final = 3.0
"""How long a dial waits for a stream: one that was used up is replaced at once."""
_BACKLOG: Final = RELAY_STREAMS_MAX


class Relay:
    """Brings connections and streams together. Thread-safe.

    Listens, once the first stream has come, on an abstract Unix socket, which
    needs no file and ends with the process.
    """

    def __init__(self) -> None:
        self._name = f"blockferry-relay-{os.urandom(8).hex()}"
        self._changed = threading.Condition()
        self._idle: deque[_Carrier] = deque()
        self._streams = 0
        self._listening = False

    def resolve(self, address: str) -> str:
        """What gRPC is to dial for the peer's `address`."""
        return f"unix-abstract:{self._name}" if address == RELAY_ADDRESS else address

    def carry(
        self, told: Iterator[bytes], on_end: Callable[[Callable[[], None]], bool]
    ) -> Iterator[bytes]:
        """Serve one stream: wait for a connection, then carry it to its end.

        Args:
            told: What the peer says; its end is the peer's.
            on_end: Has a function called when the stream has ended; False: it has already.

        Yields:
            What this agent says, at most SEGMENT_BYTES at once.

        Raises:
            UnreachableError: TOO_MANY_RELAYS.
        """
        carrier = _Carrier()
        with self._held(carrier):
            if not on_end(carrier.end):
                return
            connection = carrier.await_connection()
            if connection is None:
                return
            with connection:
                threading.Thread(
                    target=_tell, args=(told, connection), name="relay", daemon=True
                ).start()
                yield from _hear(connection)

    @contextlib.contextmanager
    def _held(self, carrier: "_Carrier") -> Iterator[None]:
        with self._changed:
            if self._streams >= RELAY_STREAMS_MAX:
                raise UnreachableError(
                    "TOO_MANY_RELAYS",
                    f"This agent holds {self._streams} streams of a relay; it needs no more.",
                    streams=self._streams,
                )
            self._listen()
            self._streams += 1
            self._idle.append(carrier)
            self._changed.notify_all()
        try:
            yield
        finally:
            carrier.end()
            with self._changed:
                self._streams -= 1
                if carrier in self._idle:
                    self._idle.remove(carrier)

    def _listen(self) -> None:
        if self._listening:
            return
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        listener.bind(f"\0{self._name}")
        listener.listen(_BACKLOG)
        threading.Thread(target=self._accept, args=(listener,), name="relay", daemon=True).start()
        self._listening = True

    def _accept(self, listener: socket.socket) -> None:
        while True:
            connection, _ = listener.accept()
            carrier = self._next()
            if carrier is None or not carrier.give(connection):
                connection.close()

    def _next(self) -> "_Carrier | None":
        with self._changed:
            self._changed.wait_for(lambda: self._idle, WAIT_SECONDS)
            return self._idle.popleft() if self._idle else None


class _Carrier:
    """One stream, and the connection that it carries."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._connection: socket.socket | None = None
        self._ended = False

    def give(self, connection: socket.socket) -> bool:
        """Have it carry `connection`; False when it has ended."""
        with self._changed:
            if self._ended:
                return False
            self._connection = connection
            self._changed.notify_all()
            return True

    def await_connection(self) -> socket.socket | None:
        """The connection, once there is one; None when the stream ends before."""
        with self._changed:
            self._changed.wait_for(lambda: self._connection is not None or self._ended)
            return self._connection

    def end(self) -> None:
        """The stream is over, and with it the connection. Idempotent."""
        with self._changed:
            self._ended = True
            if self._connection is not None:
                splice.end(self._connection)
            self._changed.notify_all()


def _tell(told: Iterator[bytes], connection: socket.socket) -> None:
    try:
        for segment in told:
            connection.sendall(segment)
        connection.shutdown(socket.SHUT_WR)
    except Exception:  # noqa: BLE001 - gRPC ends the iterator of a broken stream with a bare one
        splice.end(connection)


def _hear(connection: socket.socket) -> Iterator[bytes]:
    with contextlib.suppress(OSError):
        while segment := connection.recv(SEGMENT_BYTES):
            yield segment
