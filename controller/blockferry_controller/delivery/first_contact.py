"""Gives the agent to an instance whose installer waits for it.

A stock image's user-data does not carry the agent: Nova takes 65,535 characters
of base64, and the agent alone, stripped and packed by bz2, filled 58,000 of
them when it was 6,600 lines long. It carries the agent's SHA-256 instead.

The exchange, on the agent's own port (cloud-init/install.py is the other end):
    installer   blockferry-install <sha256, 64 hexadecimal digits>, newline
    controller  the bundle, then end of file
    installer   taken, newline, when that is its SHA-256; else it closes

There is no TLS: the source of the agent is no secret, and nothing but the file
that was named in user-data is ever taken, whoever sends it. An agent, or
whoever else listens there, says nothing first, and is left alone.
"""

import socket
from typing import Final

from blockferry import splice
from blockferry.errors import PreconditionError
from blockferry_controller.delivery.bundle import build_bundle, bundle_digest

GREETING: Final = b"blockferry-install "
TAKEN: Final = b"taken\n"
_CONNECT_SECONDS: Final = 2.0
_GREETING_SECONDS: Final = 5.0
_SEND_SECONDS: Final = 30.0
"""Longest time in which nothing of the bundle moves."""
_GREETING_BYTES: Final = len(GREETING) + 65


def deliver(address: str) -> bool:
    """Give our agent to the installer at `address`, if one waits there.

    Args:
        address: `host:port`, IPv6 in brackets, or `unix:PATH` of a tunnel.

    Returns:
        Whether it took the agent; it will be listening once it is installed.

    Raises:
        PreconditionError: AGENT_VERSION, the instance was booted to run another one.
    """
    try:
        with splice.open_connection(address, _CONNECT_SECONDS) as peer:
            peer.settimeout(_GREETING_SECONDS)
            greeting = _receive(peer, _GREETING_BYTES)
            if not greeting.startswith(GREETING):
                return False
            wanted = greeting[len(GREETING) :].decode("ascii", "replace").strip()
            if wanted != bundle_digest():
                raise _other_version(address)
            peer.settimeout(_SEND_SECONDS)
            peer.sendall(build_bundle())
            peer.shutdown(socket.SHUT_WR)
            return _receive(peer, len(TAKEN)) == TAKEN
    except OSError:
        return False


def _receive(peer: socket.socket, size_bytes: int) -> bytes:
    """Up to `size_bytes`, fewer when the peer ends before."""
    received = b""
    while len(received) < size_bytes and (part := peer.recv(size_bytes - len(received))):
        received += part
    return received


def _other_version(address: str) -> PreconditionError:
    return PreconditionError(
        "AGENT_VERSION",
        f"the instance at {address} was booted to run another agent than this controller has; "
        "cancel the migration and start it anew, or go on with the version that began it",
        address=address,
    )
