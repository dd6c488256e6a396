"""A web server on loopback that is told events: well, slow, dripping, or not at all.

`answers` is what becomes of each request, in order: a status, or one of SLOW (nothing for as
long as the server lives), DRIP (a byte of a header every 50 ms), HANGUP, or a Location to be
sent to. After the last: 204.
"""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from email.message import Message
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final

SLOW: Final = "slow"
DRIP: Final = "drip"
HANGUP: Final = "hang up"


@dataclass
class Receiver:
    """What was received. Thread-safe enough for a test: lists are only appended to."""

    answers: list[int | str] = field(default_factory=list)
    bodies: list[bytes] = field(default_factory=list)
    headers: list[Message] = field(default_factory=list)
    over: threading.Event = field(default_factory=threading.Event)
    url: str = ""

    @property
    def events(self) -> list[dict[str, Any]]:
        return [json.loads(body) for body in self.bodies]

    def words(self) -> list[str]:
        return [event["event"] for event in self.events]


@contextmanager
def receiver(*answers: int | str) -> Iterator[Receiver]:
    """A server until the block ends."""
    heard = Receiver(list(answers))

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            length = int(self.headers["Content-Length"])
            heard.bodies.append(self.rfile.read(length))
            heard.headers.append(self.headers)
            answer = heard.answers.pop(0) if heard.answers else 204
            if answer == SLOW:
                heard.over.wait(30)
            elif answer == DRIP:
                self.wfile.write(b"HTTP/1.1 200 OK\r\nX: ")
                while not heard.over.wait(0.05):
                    self.wfile.write(b"x")
            elif isinstance(answer, int):
                self.send_response(answer)
                self.end_headers()
            elif answer != HANGUP:
                self.send_response(307)
                self.send_header("Location", answer)
                self.end_headers()

        def handle(self) -> None:
            try:
                super().handle()
            except OSError:
                # Who asked has hung up.
                return

        def log_message(self, *args: object) -> None:
            return

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    heard.url = f"http://127.0.0.1:{server.server_address[1]}/hooks/7?room=ops"
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield heard
    finally:
        heard.over.set()
        server.shutdown()
        server.server_close()
        thread.join()
