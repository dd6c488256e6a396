"""One list for all who wait: whether anything has happened to what each of them waits for.

Rules:
* It only ever saves a look. What a list shows changed, or does not show, its waiter looks at
  by id; what it shows as it was, for at most QUIET_SECONDS not. So a list that lags, or that an
  operator's filters cut, costs calls, and never gives a wrong answer.
* Few look by id. Where many wait, one list serves them, at most one every PERIOD_SECONDS: one
  of them makes it, the others have it when it is there.
* A row of a list costs a cloud about a tenth of a look by id: a list of more rows than
  ROWS_EACH times the waiters is not made again.
* A list that fails is not repeated: all look by id, and sit the outage out there.
"""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final, Generic, TypeVar

from blockferry.errors import BlockferryError
from blockferry_controller.clock import Clock

FEW: Final = 3
"""As many look by id, each about every five seconds."""
PERIOD_SECONDS: Final = 2.0
QUIET_SECONDS: Final = 30.0
ROWS_EACH: Final = 10

T = TypeVar("T")


class Lookout(Generic[T]):
    """The things of one kind in one project. Thread-safe.

    Args:
        list_all: Asks once for all of them, by id, as they are compared by `==`.
        clock: Time.
    """

    def __init__(self, list_all: Callable[[], dict[str, T]], clock: Clock) -> None:
        self._list_all = list_all
        self._clock = clock
        self._count = threading.Lock()
        self._waiters = 0
        self._listing = threading.Lock()
        self._shown: dict[str, T] = {}
        self._rows = 0
        self._listed_at = float("-inf")

    @contextmanager
    def watch(self, thing: str) -> "Iterator[Watch[T]]":
        """Wait for the thing of that id, in the block."""
        with self._count:
            self._waiters += 1
        try:
            yield Watch(self, thing, self._clock)
        finally:
            with self._count:
                self._waiters -= 1

    def shown(self, thing: str) -> T | None:
        """What the newest list shows of it; None: look by id."""
        if self._waiters <= FEW or self._rows > ROWS_EACH * self._waiters:
            return None
        with self._listing:
            if self._clock.monotonic() - self._listed_at >= PERIOD_SECONDS:
                self._list()
            return self._shown.get(thing)

    def _list(self) -> None:
        try:
            self._shown = self._list_all()
            self._rows = len(self._shown)
        except BlockferryError:
            self._shown = {}
        # Of when it was there: one that takes long is not made without a pause.
        self._listed_at = self._clock.monotonic()


class Watch(Generic[T]):
    """One who waits for one thing. Not thread-safe."""

    def __init__(self, lookout: Lookout[T], thing: str, clock: Clock) -> None:
        self._lookout, self._thing, self._clock = lookout, thing, clock
        self._seen: T | None = None
        self._looked_at = clock.monotonic()

    def insist(self) -> None:
        """Look by id next time: what is waited for now, no list would show."""
        self._seen = None

    def quiet(self) -> bool:
        """Whether nothing has happened since it was asked last; False: look by id now."""
        before, self._seen = self._seen, self._lookout.shown(self._thing)
        now = self._clock.monotonic()
        if self._seen is None or self._seen != before or now - self._looked_at >= QUIET_SECONDS:
            self._looked_at = now
            return False
        return True
