"""A way to a PostgreSQL server's socket that can be cut: bytes stay, connections too."""

import socket
import tempfile
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path


class CutLine:
    """See the module.

    Args:
        directory: Where the socket of the near end is made.
        server: The directory of the server's own.
    """

    def __init__(self, directory: Path, server: Path) -> None:
        self._open = threading.Event()
        self._open.set()
        self._ends: list[socket.socket] = []
        self._target = str(server / ".s.PGSQL.5432")
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(directory / ".s.PGSQL.5432"))
        self._listener.listen(100)
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                near, _ = self._listener.accept()
                far = socket.socket(socket.AF_UNIX)
                self._ends += [near, far]
                far.connect(self._target)
                for one, other in ((near, far), (far, near)):
                    threading.Thread(target=self._carry, args=(one, other), daemon=True).start()

    def _carry(self, one: socket.socket, other: socket.socket) -> None:
        with suppress(OSError):
            while data := one.recv(1 << 16):
                self._open.wait()
                other.sendall(data)
        for end in (one, other):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def cut(self) -> None:
        self._open.clear()

    def mend(self) -> None:
        self._open.set()

    def close(self) -> None:
        self.mend()
        self._listener.shutdown(socket.SHUT_RDWR)
        for end in (self._listener, *self._ends):
            end.close()


@contextmanager
def cut_line(server: Path) -> Iterator[tuple[CutLine, Path]]:
    """A line, and the directory of its socket: to be given as the host of a URL."""
    # A socket's path has 107 characters at most: pytest's directories are too long.
    with (
        tempfile.TemporaryDirectory(prefix="blockferry-line-") as place,
        closing(CutLine(Path(place), server)) as made,
    ):
        yield made, Path(place)
