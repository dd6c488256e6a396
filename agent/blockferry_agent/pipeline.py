"""What stages of a pipeline are made of: bounded queues and groups of threads.

Rules:
* Everything between two threads is bounded; a full queue holds its producer.
* Closing wakes every waiter. Closed without an error, what was put is still
  handed out; closed with one, it is dropped.
* The first error of a group wins and closes everything; later ones are logged.
"""

import logging
import threading
from collections import deque
from collections.abc import Callable, Iterator
from typing import Generic, Protocol, TypeVar

_log = logging.getLogger(__name__)

T = TypeVar("T")
R = TypeVar("R")


class Closed(Exception):  # noqa: N818 - the quiet end of a stage, not a failure
    """Nothing more goes through here; the reason is held by who closed it."""


class Closable(Protocol):
    """What a StageGroup closes when one of its stages fails."""

    def close(self, error: BaseException | None = None) -> None:
        """End it and wake every waiter. Idempotent; the first error stays."""
        ...


class ClosableQueue(Generic[T]):
    """A bounded queue between threads. Thread-safe."""

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._items: deque[T] = deque()
        self._lock = threading.Lock()
        self._not_empty = threading.Condition(self._lock)
        self._not_full = threading.Condition(self._lock)
        self._closed = False
        self._error: BaseException | None = None

    def __len__(self) -> int:
        return len(self._items)

    def put(self, item: T) -> None:
        """Append; waits while the queue is full. Raises Closed."""
        with self._lock:
            while len(self._items) >= self._capacity and not self._closed:
                self._not_full.wait()
            if self._closed:
                raise Closed from self._error
            self._items.append(item)
            self._not_empty.notify()

    def get(self) -> T:
        """Take the oldest; waits while the queue is empty. Raises Closed."""
        with self._lock:
            while not self._items and not self._closed:
                self._not_empty.wait()
            if not self._items:
                raise Closed from self._error
            item = self._items.popleft()
            self._not_full.notify()
            return item

    def __iter__(self) -> Iterator[T]:
        """Items until the queue is closed."""
        while True:
            try:
                item = self.get()
            except Closed:
                return
            yield item

    def close(self, error: BaseException | None = None) -> None:
        """Take no more items; with an error, drop those that are here too."""
        with self._lock:
            self._closed = True
            if error is not None:
                self._items.clear()
                self._error = self._error or error
            self._not_empty.notify_all()
            self._not_full.notify_all()


class Ordered(Generic[T, R]):
    """Work of several threads whose results come out in the order of the items.

    Each thread runs `run()` with its own work function; one thread iterates
    over the results. At most `depth` items are between taken and handed out.
    """

    def __init__(self, items: Iterator[T], depth: int) -> None:
        self._items = items
        self._depth = depth
        self._taking = threading.Lock()
        self._changed = threading.Condition()
        self._results: dict[int, R] = {}
        self._taken = 0
        self._given = 0
        self._last: int | None = None
        self._closed = False
        self._error: BaseException | None = None

    def run(self, work: Callable[[T], R]) -> None:
        """Do work until the items or the reader end."""
        while (taken := self._take()) is not None:
            number, item = taken
            result = work(item)
            with self._changed:
                self._results[number] = result
                if number == self._given:
                    self._changed.notify_all()

    def _take(self) -> tuple[int, T] | None:
        # A lock of its own: the iterator may wait, and results go on meanwhile.
        with self._taking:
            with self._changed:
                while self._taken - self._given >= self._depth and not self._closed:
                    self._changed.wait()
                if self._closed or self._last is not None:
                    return None
            try:
                item = next(self._items)
            except StopIteration:
                with self._changed:
                    self._last = self._taken
                    self._changed.notify_all()
                return None
            with self._changed:
                number = self._taken
                self._taken += 1
            return number, item

    def __iter__(self) -> Iterator[R]:
        """Results in order; ends after the last item, raises Closed when closed."""
        while True:
            with self._changed:
                while self._given not in self._results:
                    if self._closed:
                        raise Closed from self._error
                    if self._given == self._last:
                        return
                    self._changed.wait()
                result = self._results.pop(self._given)
                self._given += 1
                self._changed.notify_all()
            yield result

    def close(self, error: BaseException | None = None) -> None:
        """Stop taking items and wake everyone."""
        with self._changed:
            self._closed = True
            self._error = self._error or error
            self._changed.notify_all()


class StageGroup:
    """Threads that stand and fall together."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._threads: list[threading.Thread] = []
        self._closables: list[Closable] = []
        self._lock = threading.Lock()
        self._error: BaseException | None = None
        self._failed = threading.Event()

    @property
    def error(self) -> BaseException | None:
        """The first error, if any."""
        return self._error

    def closes(self, *closables: Closable) -> None:
        """Have these closed by the first error (at once if there was one)."""
        with self._lock:
            self._closables.extend(closables)
            error = self._error
        if error is not None:
            for closable in closables:
                closable.close(error)

    def spawn(self, stage: str, work: Callable[[], None]) -> None:
        """Run a stage in a thread of its own, named `<group>-<stage>`."""
        thread = threading.Thread(
            target=self._guard, args=(stage, work), name=f"{self._name}-{stage}", daemon=True
        )
        self._threads.append(thread)
        thread.start()

    def _guard(self, stage: str, work: Callable[[], None]) -> None:
        try:
            work()
        except Closed:
            _log.debug("%s-%s: closed", self._name, stage)
        except Exception as error:  # noqa: BLE001 - handed on to join()
            self.fail(error)

    def fail(self, error: BaseException) -> None:
        """End all stages for `error`; the first call decides."""
        with self._lock:
            if self._error is not None:
                _log.info("%s: after the first error: %s", self._name, error)
                return
            self._error = error
            closables = list(self._closables)
        for closable in closables:
            closable.close(error)
        self._failed.set()

    def wait(self, timeout_seconds: float) -> bool:
        """Wait until all stages ended, or one failed; whether so within the time."""
        for thread in self._threads:
            if self._failed.is_set():
                return True
            thread.join(timeout_seconds)
            if thread.is_alive():
                return self._failed.is_set()
        return True

    def join(self) -> None:
        """Wait for all stages; raise the first error."""
        for thread in self._threads:
            thread.join()
        if self._error is not None:
            raise self._error
