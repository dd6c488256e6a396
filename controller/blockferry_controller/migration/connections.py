"""Clouds and durable execution, shared by all attempts of this process while one needs them.

The first that asks opens, the last that is through closes: one migration leaves nothing
open behind it, and a fleet that keeps a hold on them logs in once.
"""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Generic, Protocol, TypeVar


class Closable(Protocol):
    """What can be closed."""

    def close(self) -> None:
        """Release it. Idempotent."""
        ...


T = TypeVar("T", bound=Closable)


class _Entry(Generic[T]):
    """One thing: how many hold it, and a lock for opening and closing it."""

    def __init__(self) -> None:
        self.holders = 0
        self.lock = threading.Lock()
        self.thing: T | None = None


class Shared(Generic[T]):
    """Things by name, each open while somebody holds it. Thread-safe.

    Args:
        open_: Opens the thing of a name; what it raises reaches whoever asked.
    """

    def __init__(self, open_: Callable[[str], T]) -> None:
        self._open = open_
        self._entries: dict[str, _Entry[T]] = {}
        self._lock = threading.Lock()

    @contextmanager
    def held(self, name: str) -> Iterator[T]:
        """The thing of that name, open until the block ends."""
        with self._lock:
            entry = self._entries.setdefault(name, _Entry())
            entry.holders += 1
        try:
            # Two that ask at once open it once, and other names do not wait for it.
            with entry.lock:
                if entry.thing is None:
                    entry.thing = self._open(name)
                thing = entry.thing
            yield thing
        finally:
            self._release(entry)

    def _release(self, entry: _Entry[T]) -> None:
        # Closed before another can open it: of some things there may only be one.
        with entry.lock:
            with self._lock:
                entry.holders -= 1
                last = entry.holders == 0
            if last and entry.thing is not None:
                thing, entry.thing = entry.thing, None
                thing.close()
