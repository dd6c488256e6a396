"""HTTP for the embedded services: requests, answers, routes, one server per service.

A service answers one request at a time under its cloud's lock, so handlers need
no locking of their own. Delays and dropped connections happen outside the lock.
"""

import json
import re
import socket
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from email.message import Message
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl, unquote, urlencode, urlsplit

MAX_BODY_BYTES = 16 << 20
"""Above any request of a client of ours; what is larger is refused with 413."""

Json = dict[str, Any]


class ApiError(Exception):
    """An answer that is an error; the service it happens in gives it its body.

    Attributes:
        kind: Type in the body: Neutron's exception class, or the name of the
            fault in Nova and Cinder when it does not follow from the status.
    """

    def __init__(
        self,
        status: int,
        message: str,
        *,
        kind: str = "",
        headers: Mapping[str, str] | None = None,
        body: Any = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.kind = kind
        self.headers = dict(headers or {})
        self.body = body


class ConnectionDropped(Exception):  # noqa: N818 - a signal to the connection's handler
    """The connection ends here without an answer."""


@dataclass
class Request:
    """One request. `path` is unquoted and has no query; `query` keeps repeated keys."""

    method: str
    path: str
    query: list[tuple[str, str]]
    headers: Message
    content: bytes
    base_url: str
    token: Any = None
    version: tuple[int, int] = (0, 0)

    @property
    def params(self) -> dict[str, str]:
        """The query with the last value of each key."""
        return dict(self.query)

    def all(self, key: str) -> list[str]:
        """Every value the query has for `key`."""
        return [value for name, value in self.query if name == key]

    def json(self) -> Json:
        """The body, which must be a JSON object."""
        try:
            body = json.loads(self.content or b"null")
        except ValueError as error:
            raise ApiError(400, "Malformed request body") from error
        if not isinstance(body, dict):
            raise ApiError(400, "Malformed request body")
        return body

    def section(self, key: str) -> Json:
        """The object under `key` of the body."""
        value = self.json().get(key)
        if not isinstance(value, dict):
            raise ApiError(400, f"Invalid input for field/attribute {key}. {key!r} is required")
        return value

    def url_of_page(self, **changes: str) -> str:
        """This request's URL with other query parameters, for `next` links."""
        query = {**self.params, **changes}
        return f"{self.base_url}{self.path}?{urlencode(query)}"


@dataclass
class Response:
    """One answer. `body` is sent as JSON; None sends no body, str is sent as HTML."""

    status: int = 200
    body: Any = None
    headers: dict[str, str] = field(default_factory=dict)

    def content(self) -> tuple[bytes, str]:
        """The body's bytes and their content type."""
        if self.body is None:
            return b"", ""
        if isinstance(self.body, str):
            return self.body.encode(), "text/html; charset=UTF-8"
        return json.dumps(self.body).encode(), "application/json"


Handler = Callable[..., Response | Json]


class Router:
    """Finds the handler of a method and a path such as `/servers/{server_id}/action`."""

    def __init__(self) -> None:
        self._routes: list[tuple[str, re.Pattern[str], Handler]] = []

    def add(self, method: str, template: str, handler: Handler) -> None:
        """Let `handler(request, **path parameters)` answer."""
        pattern = re.sub(r"\{(\w+)\}", r"(?P<\1>[^/]+)", template)
        self._routes.append((method, re.compile(pattern + "/?"), handler))

    def dispatch(self, request: Request) -> Response:
        """The handler's answer; 404 or 405 when there is none."""
        path_known = False
        for method, pattern, handler in self._routes:
            match = pattern.fullmatch(request.path)
            if match and method == request.method:
                answer = handler(request, **match.groupdict())
                return answer if isinstance(answer, Response) else Response(200, answer)
            path_known = path_known or match is not None
        if path_known:
            raise ApiError(405, "The method is not allowed for the requested URL.")
        raise ApiError(404, "The resource could not be found.")


class ServiceServer(ThreadingHTTPServer):
    """A listening socket that gives its requests to `respond`, set before it serves."""

    respond: Callable[[Request], Response]

    daemon_threads = True
    block_on_close = False
    request_queue_size = 128

    def __init__(self, address: tuple[str, int]) -> None:
        self._open: set[socket.socket] = set()
        super().__init__(address, _Connection)

    def server_bind(self) -> None:
        """Bind without the name look-up of the standard library's HTTPServer."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.socket.bind(self.server_address)
        host, port = self.socket.getsockname()[:2]
        self.server_address = (host, port)
        self.server_name, self.server_port = str(host), int(port)

    @property
    def url(self) -> str:
        """Where it listens, without a trailing slash."""
        return f"http://{self.server_name}:{self.server_port}"

    def process_request(self, request: Any, client_address: Any) -> None:
        """Remember the connection, so that `close` can end it."""
        self._open.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        """Forget a connection that has ended."""
        self._open.discard(request)
        super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that went away in the middle is no news."""

    def close(self) -> None:
        """Stop listening and end the connections that clients keep alive."""
        self.shutdown()
        self.server_close()
        for connection in list(self._open):
            try:
                connection.shutdown(socket.SHUT_RDWR)
            except OSError:  # it ended by itself in the meantime
                continue


class _Connection(BaseHTTPRequestHandler):
    """One client's connection, kept alive between requests."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = -1
    server: ServiceServer

    def _serve(self) -> None:
        request_id = f"req-{uuid.uuid4()}"
        try:
            response = self.server.respond(self._request())
        except ConnectionDropped:
            self.close_connection = True
            return
        content, content_type = response.content()
        self.send_response(response.status)
        if content_type:
            self.send_header("Content-Type", content_type)
        if response.status != 204:
            self.send_header("Content-Length", str(len(content)))
        self.send_header("x-openstack-request-id", request_id)
        for name, value in response.headers.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def _request(self) -> Request:
        length = int(self.headers.get("Content-Length") or 0)
        if length > MAX_BODY_BYTES:
            raise ConnectionDropped
        url = urlsplit(self.path)
        return Request(
            method=self.command,
            path=unquote(url.path) or "/",
            query=parse_qsl(url.query, keep_blank_values=True),
            headers=self.headers,
            content=self.rfile.read(length) if length else b"",
            base_url=self.server.url,
        )

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = do_HEAD = _serve  # noqa: N815

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base's name
        """The cloud keeps its own record of requests."""
