"""The network of an instance that cannot be reached by all, or reach all.

Such an instance has a network namespace with nothing but loopback, on which its
address is its own. What passes is carried by the host: from the host's side of
its address inwards, and to a few addresses outwards. The instance's process 1
makes the sockets on its side and hands them over; nothing here needs root.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import socket
import struct
import threading
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from blockferry import splice

_SIOCGIFFLAGS, _SIOCSIFFLAGS, _IFF_UP = 0x8913, 0x8914, 0x1
_MESSAGE_BYTES = 4096
_READY_SECONDS = 30
Place = tuple[str, int]


@dataclass(frozen=True)
class Walls:
    """What passes between an instance and the world; the host stands for the world.

    Attributes:
        inwards: Ports of the instance that the host reaches, at the instance's address.
        outwards: Loopback addresses of the host, with ports, that the instance reaches.
    """

    inwards: tuple[int, ...] = ()
    outwards: tuple[Place, ...] = ()


class Wire:
    """The host's end. `theirs` goes to the instance's process 1."""

    def __init__(self, walls: Walls, addresses: tuple[str, ...]) -> None:
        self._walls = walls
        self._addresses = addresses
        self._ours, self.theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._lock = threading.Lock()
        self._ready = threading.Event()
        self._open = contextlib.ExitStack()

    def start(self) -> None:
        """Carry, once process 1 was given its end."""
        self.theirs.close()
        self._open.callback(self._ours.close)
        self._open.callback(splice.end, self._ours)
        for address in self._addresses:
            for port in self._walls.inwards:
                listener = socket.create_server((address, port))
                self._carry(listener, partial(self._inside, (address, port)))
        threading.Thread(target=self._take_listeners, name="sim-wire", daemon=True).start()

    def _take_listeners(self) -> None:
        for place in self._walls.outwards:
            with contextlib.suppress(OSError):
                listener = self._receive()
                if listener is not None:
                    self._carry(listener, partial(socket.create_connection, place, 5))
        self._ready.set()

    def _carry(self, listener: socket.socket, connect: Callable[[], socket.socket | None]) -> None:
        self._open.callback(listener.close)
        self._open.callback(splice.end, listener)

        def accept() -> None:
            while True:
                try:
                    near, _ = listener.accept()
                except OSError:
                    return
                threading.Thread(target=join, args=(near,), name="sim-wire", daemon=True).start()

        def join(near: socket.socket) -> None:
            try:
                far = connect()
            except OSError:
                far = None
            if far is None:
                near.close()
                return
            far.settimeout(None)
            splice.splice(near, far)

        threading.Thread(target=accept, name="sim-wire", daemon=True).start()

    def _inside(self, place: Place) -> socket.socket | None:
        self._ready.wait(_READY_SECONDS)
        with self._lock:
            self._ours.send(json.dumps(place).encode())
            return self._receive()

    def _receive(self) -> socket.socket | None:
        _, descriptors, _, _ = socket.recv_fds(self._ours, _MESSAGE_BYTES, 1)
        return socket.socket(fileno=descriptors[0]) if descriptors else None

    def close(self) -> None:
        """Cut it. Idempotent."""
        self.theirs.close()
        self._open.close()


def serve(descriptor: int, outwards: list[Place]) -> None:
    """The instance's end, in its own namespace; returns at once."""
    host = socket.socket(fileno=descriptor)
    _loopback_up()
    for place in outwards:
        with socket.create_server(place) as listener:
            socket.send_fds(host, [b"listener"], [listener.fileno()])
    threading.Thread(target=_connect, args=(host,), name="wire", daemon=True).start()


def _connect(host: socket.socket) -> None:
    while message := host.recv(_MESSAGE_BYTES):
        address, port = json.loads(message)
        try:
            with socket.create_connection((address, port), 5) as connection:
                socket.send_fds(host, [b"connection"], [connection.fileno()])
        except OSError:
            host.send(b"refused")


def _loopback_up() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        asked = struct.pack("16sh14x", b"lo", 0)
        _, flags = struct.unpack("16sh14x", fcntl.ioctl(control, _SIOCGIFFLAGS, asked))
        fcntl.ioctl(control, _SIOCSIFFLAGS, struct.pack("16sh14x", b"lo", flags | _IFF_UP))
