"""Destination NAT of a few ports: what comes to a floating IP goes on to the instance.

Real connections of this machine: accepted at the floating IP, dialled again to the
instance, bytes copied both ways until either end closes.
"""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable, Mapping
from functools import partial

PORTS = range(7443, 7451)
"""Those of agents; others are not translated."""
_CHUNK = 1 << 18
_DIAL_SECONDS = 5.0


class Translation:
    """One port of a floating IP that stands for a fixed address, until closed.

    Raises:
        OSError: the address is no address of this machine.
    """

    def __init__(self, address: str, port: int, dial: Callable[[], socket.socket]) -> None:
        self._dial = dial
        self._open: set[socket.socket] = set()
        self._lock = threading.Lock()
        self._listener = socket.create_server((address, port), backlog=64)
        threading.Thread(target=self._accept, name=f"sim-nat-{address}", daemon=True).start()

    def close(self) -> None:
        """Cut every connection. Idempotent."""
        with self._lock:
            ends = [self._listener, *self._open]
        for end in ends:
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):  # closed
            while True:
                outside, _ = self._listener.accept()
                threading.Thread(target=self._join, args=(outside,), daemon=True).start()

    def _join(self, outside: socket.socket) -> None:
        try:
            inside = self._dial()
        except OSError:
            outside.close()
            return
        with self._lock:
            self._open |= {outside, inside}
        back = threading.Thread(target=_copy, args=(inside, outside), daemon=True)
        back.start()
        _copy(outside, inside)
        back.join()
        with self._lock:
            self._open -= {outside, inside}
        outside.close()
        inside.close()


class Translator:
    """The floating IPs of one cloud, kept as its database says. Under the cloud's lock."""

    def __init__(self, dial: Callable[[str, int], socket.socket]) -> None:
        self._dial = dial
        self._active: dict[str, tuple[str, list[Translation]]] = {}

    def set(self, wanted: Mapping[str, str]) -> None:
        """Translate exactly `wanted`: fixed addresses by floating IP."""
        for address, (fixed, translations) in list(self._active.items()):
            if wanted.get(address) != fixed:
                for one in translations:
                    one.close()
                del self._active[address]
        for address, fixed in wanted.items():
            if address not in self._active:
                made = [Translation(address, one, partial(self._dial, fixed, one)) for one in PORTS]
                self._active[address] = fixed, made


def dial_directly(address: str, port: int) -> socket.socket:
    """To an instance at its fixed address, which is one of this machine."""
    return socket.create_connection((address, port), _DIAL_SECONDS)


def _copy(source: socket.socket, sink: socket.socket) -> None:
    source.settimeout(None)
    with contextlib.suppress(OSError):
        while data := source.recv(_CHUNK):
            sink.sendall(data)
    with contextlib.suppress(OSError):
        sink.shutdown(socket.SHUT_WR)
