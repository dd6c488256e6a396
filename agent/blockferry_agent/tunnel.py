"""Connections that the agent opens to its controller, for the controller to speak through.

Rules:
* The controller may not be able to reach us; it is then a client all the same, and
  our server is asked as always: each connection leads to our own port.
* It says one line first, which names us. It waits until the controller says GO,
  and from then on only carries.
* A connection is no proof of anything: TLS inside it is, in both directions.
* Nothing here counts as having been heard: only calls do.
"""

import logging
import socket
from collections.abc import Callable
from typing import Final

from blockferry import splice
from blockferry.limits import TUNNEL_CONNECTIONS_MAX, TUNNEL_GO, TUNNEL_IDLE
from blockferry.standby import Standby

_log = logging.getLogger(__name__)

_CONNECT_SECONDS: Final = 10.0


class Tunnel:
    """Keeps TUNNEL_IDLE connections waiting at the controller. Ends with the process.

    Args:
        address: The controller's, `host:port`.
        hello: What names us there, without the end of the line.
        own: Our server's, `host:port`.
    """

    def __init__(self, address: str, hello: str, own: str) -> None:
        self._address = address
        self._hello = hello.encode("ascii") + b"\n"
        self._own = own
        self._told = ""
        self._standby = Standby(
            self._serve, idle=TUNNEL_IDLE, most=TUNNEL_CONNECTIONS_MAX, name="tunnel"
        )

    def start(self) -> None:
        """Dial, from now on; returns at once."""
        self._standby.start()

    def stop(self) -> None:
        """Dial no more."""
        self._standby.stop()

    def _serve(self, taken: Callable[[], None]) -> None:
        try:
            with splice.open_connection(self._address, _CONNECT_SECONDS) as connection:
                connection.sendall(self._hello)
                if not _go(connection):
                    raise ConnectionResetError("it ended the connection")
                self._told = ""
                taken()
                splice.splice(connection, splice.open_connection(self._own))
        except OSError as error:
            self._tell(str(error))

    def _tell(self, what: str) -> None:
        """Once, not each time: it may be away for an hour."""
        if what != self._told:
            self._told = what
            _log.warning("the controller at %s: %s; dialling again", self._address, what)


def _go(connection: socket.socket) -> bool:
    """Wait, for as long as the connection lives, until the controller wants it."""
    said = b""
    while len(said) < len(TUNNEL_GO) and (part := connection.recv(len(TUNNEL_GO) - len(said))):
        said += part
    return said == TUNNEL_GO
