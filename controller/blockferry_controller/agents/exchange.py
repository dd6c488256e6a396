"""Where agents come to that the controller cannot reach, and it speaks to them.

    agent ── TCP ──► our port, and waits      our gRPC client ──► a socket of ours

Rules:
* All migrations of a process share a port: what an agent says first is of one of them.
* A connection names its migration, role and ticket in one line, within HELLO_SECONDS.
  Whoever does not is dropped; at most HELLOS_MAX are heard at a time, the newest.
* That line proves nothing: a connection is only a way to somebody, who proves with
  TLS, through it, who it is. The ticket keeps strangers from being in the way.
* A few connections wait for each agent; for what connects to its socket one is told
  to go, and bytes pass both ways. Only our own user can connect there.
"""

import contextlib
import hmac
import os
import selectors
import shutil
import socket
import tempfile
import threading
import time
from collections import deque
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Final

from blockferry import splice
from blockferry.errors import PreconditionError
from blockferry.identity import Role
from blockferry.limits import (
    TUNNEL_CONNECTIONS_MAX,
    TUNNEL_GO,
    TUNNEL_HELLO_MAX_BYTES,
    TUNNEL_IDLE,
)

HELLO_SECONDS: Final = 5.0
HELLOS_MAX: Final = 64
WAITING_MAX: Final = 2 * TUNNEL_IDLE
"""Of one agent: those of before its restart may not have ended yet."""
ORIGINS_MAX: Final = 16
TAKE_SECONDS: Final = 4.0
"""How long a client of ours waits for a connection: a used one is replaced at once."""
_TICK_SECONDS: Final = 0.25


class Exchanges:
    """The ports of this process on which agents are heard, each for all migrations. Thread-safe."""

    def __init__(self) -> None:
        self._ports: dict[tuple[int, socket.AddressFamily], _Port] = {}
        self._lock = threading.Lock()

    def open(
        self, port: int, family: socket.AddressFamily, hellos: Mapping[Role, str]
    ) -> "Exchange":
        """Listen for the agents of one migration, until that is closed.

        Args:
            port: TCP port, on all addresses of this machine; 0: any that is free.
            family: AF_INET or AF_INET6.
            hellos: What each agent says first, without the end of the line.

        Raises:
            PreconditionError: CONTROLLER_PORT_TAKEN, by another process.
        """
        with self._lock:
            door = self._ports.get((port, family))
            if door is None:
                door = _Port(port, family)
                self._ports[door.number, family] = door
            try:
                return Exchange(self, door, hellos)
            finally:
                # With the first desk it is used; without, it could not be made.
                self._close_unused(door)

    def leave(self, door: "_Port", desks: Collection["_Desk"]) -> None:
        """Hear nobody any more who comes to `desks`; a port that nobody wants is free on return."""
        with self._lock:
            door.forget(desks)
            self._close_unused(door)

    def _close_unused(self, door: "_Port") -> None:
        if not door.desks and self._ports.get((door.number, door.family)) is door:
            del self._ports[door.number, door.family]
            door.close()


class Exchange:
    """Where the agents of one migration come to; see Exchanges.open. Thread-safe."""

    def __init__(self, owner: Exchanges, door: "_Port", hellos: Mapping[Role, str]) -> None:
        self._owner, self._door = owner, door
        self.port: int = door.number
        self._directory = Path(tempfile.mkdtemp(prefix="blockferry-"))
        self._desks: dict[Role, _Desk] = {}
        # Where no more files can be opened, or threads begun, nothing stays.
        with contextlib.ExitStack() as halfway:
            halfway.callback(self._clear)
            lines: dict[bytes, _Desk] = {}
            for role, hello in hellos.items():
                desk = self._desks[role] = _Desk(self._directory / role.value)
                lines[f"{hello}\n".encode("ascii")] = desk
            halfway.pop_all()
        for earlier in door.admit(lines):
            earlier.close()

    def address(self, role: Role) -> str:
        """Where a client of ours reaches that agent, for gRPC and `splice.open_connection`."""
        return f"unix:{self._desks[role].path}"

    def waiting(self, role: Role) -> int:
        """How many connections of that agent wait."""
        return self._desks[role].waiting

    def origins(self, role: Role) -> list[str]:
        """Addresses that connections of that agent came from, so far; at most ORIGINS_MAX."""
        return sorted(self._desks[role].origins)

    def close(self) -> None:
        """Break off everything. Idempotent."""
        self._owner.leave(self._door, self._desks.values())
        self._clear()

    def _clear(self) -> None:
        for desk in self._desks.values():
            desk.close()
        shutil.rmtree(self._directory, ignore_errors=True)


class _Port:
    """Listens, and leads whoever names a desk there. Its owner calls one thing at a time."""

    def __init__(self, port: int, family: socket.AddressFamily) -> None:
        try:
            self._listener = socket.create_server(("", port), family=family, backlog=HELLOS_MAX)
        except OSError as error:
            why = os.strerror(error.errno or 0)
            raise PreconditionError(
                "CONTROLLER_PORT_TAKEN",
                f"port {port} of this machine cannot be listened on ({why}): another process "
                "may do so; choose another with --controller-address IP:PORT",
                port=port,
            ) from error
        self.number: int = self._listener.getsockname()[1]
        self.family = family
        self.desks: Mapping[bytes, _Desk] = {}
        """By the line that leads there; replaced as a whole."""
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._receive, name="exchange", daemon=True)
        with contextlib.ExitStack() as halfway:
            halfway.callback(self._listener.close)
            # Here, not there: who cannot listen is told.
            self._selector = halfway.enter_context(selectors.DefaultSelector())
            self._thread.start()
            halfway.pop_all()

    def admit(self, desks: Mapping[bytes, "_Desk"]) -> list["_Desk"]:
        """Hear who comes to `desks`, and return those that the same lines have led to before.

        They are of an attempt that is lost, and hold the connections of these agents.
        """
        earlier = [self.desks[line] for line in desks if line in self.desks]
        self.desks = {**self.desks, **desks}
        return earlier

    def forget(self, desks: Collection["_Desk"]) -> None:
        """Hear them no more."""
        self.desks = {line: desk for line, desk in self.desks.items() if desk not in desks}

    def close(self) -> None:
        """The port is free on return."""
        self._closed.set()
        splice.end(self._listener)
        self._thread.join()

    def _receive(self) -> None:
        """One thread hears all who come, so that a stranger costs a socket and no more."""
        with self._listener, self._selector as selector:
            guests: deque[_Guest] = deque()
            selector.register(self._listener, selectors.EVENT_READ)
            self._listener.setblocking(False)
            while not self._closed.is_set():
                for key, _ in selector.select(_TICK_SECONDS):
                    if key.fileobj is self._listener:
                        self._greet(selector, guests)
                    elif key.data.hear():
                        self._settle(selector, guests, key.data)
                now = time.monotonic()
                while guests and (guests[0].until < now or len(guests) > HELLOS_MAX):
                    self._settle(selector, guests, guests[0])
            for guest in guests:
                guest.connection.close()

    def _greet(self, selector: selectors.BaseSelector, guests: "deque[_Guest]") -> None:
        with contextlib.suppress(OSError):
            connection, _ = self._listener.accept()
            connection.setblocking(False)
            guest = _Guest(connection, time.monotonic() + HELLO_SECONDS)
            selector.register(connection, selectors.EVENT_READ, guest)
            guests.append(guest)

    def _settle(
        self, selector: selectors.BaseSelector, guests: "deque[_Guest]", guest: "_Guest"
    ) -> None:
        """Let a guest wait at the desk it named, or send it away."""
        selector.unregister(guest.connection)
        guests.remove(guest)
        for line, desk in self.desks.items():
            if hmac.compare_digest(guest.said, line):
                guest.connection.setblocking(True)
                splice.keep_alive(guest.connection)
                desk.park(guest.connection)
                return
        guest.connection.close()


class _Guest:
    """A connection whose first line is not complete."""

    def __init__(self, connection: socket.socket, until: float) -> None:
        self.connection = connection
        self.until = until
        self.said = b""

    def hear(self) -> bool:
        """Take what has come; whether it is all that is wanted, or can be had."""
        try:
            part = self.connection.recv(TUNNEL_HELLO_MAX_BYTES - len(self.said))
        except BlockingIOError:
            return False
        except OSError:
            part = b""
        self.said += part
        return not part or b"\n" in self.said or len(self.said) >= TUNNEL_HELLO_MAX_BYTES


class _Desk:
    """The connections of one agent, and the socket through which we reach it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._changed = threading.Condition()
        self._parked: deque[socket.socket] = deque()
        self.origins: set[str] = set()
        self._carried: set[socket.socket] = set()
        self._closed = False
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            self._listener.bind(str(path))
            self._listener.listen(TUNNEL_CONNECTIONS_MAX)
            threading.Thread(target=self._accept, name="exchange-desk", daemon=True).start()
        except BaseException:
            self._listener.close()
            raise

    @property
    def waiting(self) -> int:
        return len(self._parked)

    def park(self, connection: socket.socket) -> None:
        """Have it wait; the one that waits longest goes for it when they are too many."""
        with self._changed:
            if self._closed:
                connection.close()
                return
            self._parked.append(connection)
            if len(self.origins) < ORIGINS_MAX:
                with contextlib.suppress(OSError):  # it has gone already
                    self.origins.add(str(connection.getpeername()[0]))
            if len(self._parked) > WAITING_MAX:
                self._parked.popleft().close()
            self._changed.notify_all()

    def close(self) -> None:
        """Break off everything. Idempotent."""
        with self._changed:
            if self._closed:
                return
            self._closed = True
            splice.end(self._listener)
            self._listener.close()
            while self._parked:
                self._parked.popleft().close()
            for connection in self._carried:
                splice.end(connection)
            self._changed.notify_all()

    def _accept(self) -> None:
        while not self._closed:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            agent = self._take()
            if agent is None:
                client.close()
            else:
                threading.Thread(
                    target=self._carry, args=(client, agent), name="exchange-carry", daemon=True
                ).start()

    def _take(self) -> socket.socket | None:
        """A connection that was told to go."""
        until = time.monotonic() + TAKE_SECONDS
        with self._changed:
            while not self._closed and len(self._carried) < TUNNEL_CONNECTIONS_MAX:
                while self._parked:
                    connection = self._parked.popleft()
                    if _goes(connection):
                        self._carried.add(connection)
                        return connection
                    connection.close()
                left = until - time.monotonic()
                if left <= 0 or not self._changed.wait(left):
                    return None
        return None

    def _carry(self, client: socket.socket, agent: socket.socket) -> None:
        splice.splice(client, agent)
        with self._changed:
            self._carried.discard(agent)


def _goes(connection: socket.socket) -> bool:
    """Whether it is alive, as far as the kernel knows, and has said nothing out of turn."""
    try:
        connection.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT)
    except BlockingIOError:
        with contextlib.suppress(OSError):
            connection.sendall(TUNNEL_GO)
            return True
    except OSError:
        return False
    return False
