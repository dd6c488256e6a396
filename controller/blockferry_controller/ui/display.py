"""Chooses how a running migration is shown, and keeps showing it from failing it."""

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime, timezone
from typing import Final, TextIO

from blockferry_controller.events import Event, Listener
from blockferry_controller.ui.lines import Lines
from blockferry_controller.ui.ndjson import Ndjson

_TICK_SECONDS: Final = 1.0


@contextmanager
def display(output: str | None, stream: TextIO) -> Iterator[Listener]:
    """A listener that writes to `stream` until the block ends.

    NDJSON with `-o json`; a progress bar on a terminal; plain lines elsewhere.
    Events may come from any thread. When `stream` breaks, showing stops and the
    migration goes on.

    Args:
        output: As given with --output.
        stream: Standard error.
    """
    if output == "json":
        yield _Guard(Ndjson(_writer(stream))).tell
    elif stream.isatty() and os.environ.get("TERM") != "dumb":
        from rich.console import Console  # noqa: PLC0415 - only terminals pay for it

        from blockferry_controller.ui.progress import Bar  # noqa: PLC0415

        with Bar(Console(file=stream)) as bar:
            yield _Guard(bar).tell
    else:
        lines = Lines(_writer(stream))
        guard = _Guard(lines)
        with _ticking(lambda: guard.run(lambda: lines.tick(datetime.now(timezone.utc)))):
            yield guard.tell


def _writer(stream: TextIO) -> Callable[[str], None]:
    def write(line: str) -> None:
        stream.write(line)
        stream.flush()

    return write


class _Guard:
    """One event at a time; silent for good once the stream is gone."""

    def __init__(self, listener: Listener) -> None:
        self._listener = listener
        self._lock = threading.Lock()
        self._gone = False

    def tell(self, event: Event) -> None:
        self.run(lambda: self._listener(event))

    def run(self, work: Callable[[], None]) -> None:
        with self._lock:
            if self._gone:
                return
            try:
                work()
            except OSError:
                self._gone = True


@contextmanager
def _ticking(tick: Callable[[], None]) -> Iterator[None]:
    """Call `tick` every second, in a thread that ends with the block."""
    ended = threading.Event()

    def run() -> None:
        while not ended.wait(_TICK_SECONDS):
            tick()

    thread = threading.Thread(target=run, name="display", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
