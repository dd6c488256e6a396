"""Connections carried on: what one says, the other hears, in both directions.

Nothing here looks at the bytes. Who speaks through such a connection uses TLS
from end to end, so whoever carries it can break it, and nothing else.
"""

import contextlib
import socket
import threading
from typing import Final

from blockferry.limits import SEGMENT_BYTES

_CONNECT_SECONDS: Final = 5.0
_END_SECONDS: Final = 10.0
"""How long one direction may go on when the other has ended."""
_UNACKED_MILLISECONDS: Final = 30_000
_UNIX: Final = "unix:"


def open_connection(address: str, timeout_seconds: float = _CONNECT_SECONDS) -> socket.socket:
    """A connection to `host:port` (IPv6 in brackets), or to the socket at `unix:PATH`.

    Raises:
        OSError: it does not come about; TimeoutError after `timeout_seconds`.
    """
    if address.startswith(_UNIX):
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            connection.settimeout(timeout_seconds)
            connection.connect(address.removeprefix(_UNIX))
        except BaseException:
            connection.close()
            raise
    else:
        host, _, port = address.rpartition(":")
        connection = socket.create_connection((host.strip("[]"), int(port)), timeout_seconds)
        keep_alive(connection)
    connection.settimeout(None)
    return connection


def keep_alive(connection: socket.socket) -> None:
    """Have the kernel end a TCP connection whose other end is silent for a minute."""
    for level, option, value in (
        (socket.SOL_SOCKET, "SO_KEEPALIVE", 1),
        (socket.IPPROTO_TCP, "TCP_KEEPIDLE", 20),
        (socket.IPPROTO_TCP, "TCP_KEEPINTVL", 10),
        (socket.IPPROTO_TCP, "TCP_KEEPCNT", 3),
        (socket.IPPROTO_TCP, "TCP_USER_TIMEOUT", _UNACKED_MILLISECONDS),
        (socket.IPPROTO_TCP, "TCP_NODELAY", 1),
    ):
        # Not every system has all of them.
        if hasattr(socket, option):
            connection.setsockopt(level, getattr(socket, option), value)


def end(connection: socket.socket) -> None:
    """End both directions, and wake whoever waits for it. Idempotent; any thread."""
    with contextlib.suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)


def splice(one: socket.socket, other: socket.socket) -> None:
    """Carry both directions until both have ended; both are closed on return."""
    with one, other:
        back = threading.Thread(target=_carry, args=(other, one), name="splice", daemon=True)
        back.start()
        _carry(one, other)
        back.join(_END_SECONDS)
        end(one)
        end(other)
        back.join()


def _carry(source: socket.socket, target: socket.socket) -> None:
    try:
        while segment := source.recv(SEGMENT_BYTES):
            target.sendall(segment)
        target.shutdown(socket.SHUT_WR)
    except OSError:
        end(source)
        end(target)
