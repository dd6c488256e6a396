"""Serves a directory of wheels to instances: the controller's own `--wheels`.

Rules:
* Read-only, and nothing but the wheels of one directory: a name that is asked for must be
  one that the directory lists. No path is ever made from a request.
* No secret is here and hashes vouch for what installs them, so it is plain HTTP. It listens
  on one address, the one that instances are told.
* Bounded: so many connections at once, each closed when it is silent for a while.
"""

import contextlib
import errno
import html
import os
import re
import shutil
import socket
import stat
import threading
from functools import partial
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Final
from urllib.parse import unquote, urlsplit

from blockferry.errors import BusyError, NotFoundError, PreconditionError, UsageError

CONNECTIONS_MAX: Final = 64
SILENCE_SECONDS: Final = 30.0
_WHEEL: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.+!-]*\.whl")
_ANYWHERE: Final = {4: "192.0.2.1", 6: "2001:db8::1"}
"""Documentation's: no packet is sent there, only the routing table is asked."""


class WheelServer(ThreadingHTTPServer):
    """Serves until it is shut down; a context manager, as its base is.

    Args:
        directory: Of wheels, such as `make wheelhouse` makes. Looked at for each request.
        address: To listen on, without brackets.
        port: 0 for a free one.

    Raises:
        NotFoundError: DIRECTORY_NOT_FOUND.
        PreconditionError: NO_WHEELS.
        BusyError: PORT_IN_USE.
        UsageError: ADDRESS_NOT_OURS.
    """

    daemon_threads = True
    request_queue_size = CONNECTIONS_MAX

    def __init__(self, directory: Path, address: str, port: int) -> None:
        if not directory.is_dir():
            raise NotFoundError(
                "DIRECTORY_NOT_FOUND", f"there is no directory {directory}", path=str(directory)
            )
        if not wheels_in(directory):
            raise PreconditionError(
                "NO_WHEELS",
                f"there is no wheel in {directory}; `make wheelhouse WHEELHOUSE={directory}` "
                "collects what instances need",
                path=str(directory),
            )
        self.address_family = socket.AF_INET6 if ":" in address else socket.AF_INET
        self._free = threading.BoundedSemaphore(CONNECTIONS_MAX)
        try:
            super().__init__((address, port), partial(_Request, directory))
        except OSError as error:
            raise _refused(error, address, port) from error

    @property
    def url(self) -> str:
        """What `--wheels` takes."""
        host, port = self.server_address[:2]
        return f"http://[{host!s}]:{port}/" if ":" in str(host) else f"http://{host!s}:{port}/"

    def process_request(self, request: Any, client_address: Any) -> None:
        """In a thread of its own, unless there are too many: then it is closed."""
        if not self._free.acquire(blocking=False):
            self.shutdown_request(request)
            return
        super().process_request(request, client_address)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """To its end."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._free.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that went away is no news."""


class _Request(BaseHTTPRequestHandler):
    """One connection. Anything but GET and HEAD is 501, by the base."""

    protocol_version = "HTTP/1.1"
    timeout = SILENCE_SECONDS
    server_version = "blockferry"
    sys_version = ""

    def __init__(self, directory: Path, *arguments: Any) -> None:
        self._directory = directory
        super().__init__(*arguments)

    def do_GET(self) -> None:
        """The page of links, or a wheel."""
        name = unquote(urlsplit(self.path).path).removeprefix("/")
        if not name:
            self._send_page()
        elif name in wheels_in(self._directory):
            self._send_wheel(name)
        else:
            self._send_nothing()

    do_HEAD = do_GET  # noqa: N815

    def log_message(self, *_: Any) -> None:
        """Nothing: pip asks a lot."""

    def _send_page(self) -> None:
        names = map(html.escape, wheels_in(self._directory))
        page = "".join(f'<a href="{name}">{name}</a><br>\n' for name in names)
        content = f"<!DOCTYPE html><title>Wheels</title>\n{page}".encode()
        self._send_head(HTTPStatus.OK, "text/html; charset=utf-8", len(content))
        if self.command != "HEAD":
            self.wfile.write(content)

    def _send_wheel(self, name: str) -> None:
        try:
            # Not through a link that was put there since the name was read.
            fd = os.open(self._directory / name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except OSError:
            self._send_nothing()
            return
        with open(fd, "rb") as wheel:  # noqa: PTH123 - a descriptor, not a path
            self._send_head(HTTPStatus.OK, "application/octet-stream", os.fstat(fd).st_size)
            if self.command != "HEAD":
                shutil.copyfileobj(wheel, self.wfile, 1 << 20)

    def _send_nothing(self) -> None:
        self._send_head(HTTPStatus.NOT_FOUND, "text/plain", 0)

    def _send_head(self, status: HTTPStatus, content_type: str, size_bytes: int) -> None:
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(size_bytes))
        self.end_headers()


def wheels_in(directory: Path) -> list[str]:
    """Names of the wheels in a directory, sorted: regular files, no links."""
    found = []
    for path in directory.iterdir():
        with contextlib.suppress(OSError):
            if _WHEEL.fullmatch(path.name) and stat.S_ISREG(path.lstat().st_mode):
                found.append(path.name)
    return sorted(found)


def own_address() -> str:
    """The address that this machine has for others, IPv4 first; loopback when it has none.

    Connecting a UDP socket sends nothing: it only asks the routing table.
    """
    for version, family in ((4, socket.AF_INET), (6, socket.AF_INET6)):
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            try:
                probe.connect((_ANYWHERE[version], 9))
            except OSError:
                continue
            return str(probe.getsockname()[0])
    return "127.0.0.1"


def _refused(error: OSError, address: str, port: int) -> Exception:
    if error.errno == errno.EADDRINUSE:
        return BusyError(
            "PORT_IN_USE",
            f"port {port} of {address} is taken; choose another with --port",
            port=port,
        )
    if error.errno == errno.EADDRNOTAVAIL or isinstance(error, socket.gaierror):
        return UsageError(
            "ADDRESS_NOT_OURS",
            f"{address} is no address of this machine; choose one with --address",
            address=address,
        )
    if error.errno == errno.EACCES:
        return UsageError(
            "PORT_NOT_ALLOWED", f"port {port} is not for this user; choose another", port=port
        )
    return error
