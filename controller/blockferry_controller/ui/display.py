"""Chooses how a running migration is shown, and keeps showing it from failing it."""

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TextIO

from blockferry_controller.migration.events import Event, Listener
from blockferry_controller.ui.lines import Lines
from blockferry_controller.ui.ndjson import Ndjson


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
        yield _guarded(Ndjson(_writer(stream)))
    elif stream.isatty() and os.environ.get("TERM") != "dumb":
        from rich.console import Console  # noqa: PLC0415 - only terminals pay for it

        from blockferry_controller.ui.progress import Bar  # noqa: PLC0415

        with Bar(Console(file=stream)) as bar:
            yield _guarded(bar)
    else:
        yield _guarded(Lines(_writer(stream)))


def _writer(stream: TextIO) -> Callable[[str], None]:
    def write(line: str) -> None:
        stream.write(line)
        stream.flush()

    return write


def _guarded(listener: Listener) -> Listener:
    """One event at a time; silent for good once the stream is gone."""
    lock = threading.Lock()
    gone = threading.Event()

    def told(event: Event) -> None:
        with lock:
            if gone.is_set():
                return
            try:
                listener(event)
            except OSError:
                gone.set()

    return told
