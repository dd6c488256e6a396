"""Calls from controllers to the world, over a Unix socket. Both ends are this code, pickled."""

import queue
import threading
from collections.abc import Callable
from contextlib import suppress
from multiprocessing.connection import Client, Connection, Listener
from pathlib import Path
from typing import Any

_BACKLOG = 512
_AWAY = (EOFError, ConnectionError)


def serve(path: Path, answer: Callable[..., Any]) -> threading.Thread:
    """Answer calls, a thread a connection, until the process ends; it listens on return."""
    listener = Listener(str(path), family="AF_UNIX", backlog=_BACKLOG)

    def converse(connection: Connection) -> None:
        with suppress(*_AWAY):
            while True:
                try:
                    said = True, answer(*connection.recv())
                except _AWAY:
                    return
                except Exception as error:  # noqa: BLE001 - raised at the caller's
                    said = False, error
                connection.send(said)

    def accept() -> None:
        while True:
            threading.Thread(target=converse, args=(listener.accept(),), daemon=True).start()

    thread = threading.Thread(target=accept, daemon=True)
    thread.start()
    return thread


class Caller:
    """The other end. Thread-safe: each call has a connection for itself."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._idle: queue.LifoQueue[Connection] = queue.LifoQueue()

    def __call__(self, *arguments: object) -> Any:
        try:
            connection = self._idle.get_nowait()
        except queue.Empty:
            connection = Client(str(self._path), family="AF_UNIX")
        connection.send(arguments)
        well, said = connection.recv()
        self._idle.put(connection)
        if not well:
            raise said
        return said
