"""Connections held ready: some wait, each that is used is replaced, and all have a bound."""

import random
import threading
from collections.abc import Callable
from typing import Final

_PAUSE_SECONDS: Final = 0.25
_PAUSE_MOST_SECONDS: Final = 5.0

Work = Callable[[Callable[[], None]], None]
"""Makes one connection, waits, carries it to its end. Calls its argument once, as soon
as the connection is used. Returns when it is over; raises nothing."""


class Standby:
    """Keeps `idle` threads waiting in `work`, and at most `most` in it. Thread-safe.

    What ended unused, or was used, is begun anew after a jittered pause, which
    grows from 0.25 s to 5 s while nothing is used.
    """

    def __init__(self, work: Work, *, idle: int, most: int, name: str) -> None:
        self._work = work
        self._wanted = idle
        self._most = most
        self._name = name
        self._lock = threading.Lock()
        self._stopped = threading.Event()
        self._threads = 0
        self._idle = 0

    def start(self) -> None:
        """Begin; returns at once."""
        for _ in range(self._wanted):
            self._begin()

    @property
    def stopped(self) -> bool:
        """Whether `stop` was called."""
        return self._stopped.is_set()

    def stop(self) -> None:
        """Begin nothing any more; who is in `work` is ended by the caller. Idempotent."""
        self._stopped.set()

    def _begin(self) -> None:
        with self._lock:
            enough = self._idle >= self._wanted or self._threads >= self._most
            if enough or self.stopped:
                return
            self._idle += 1
            self._threads += 1
        threading.Thread(target=self._run, name=self._name, daemon=True).start()

    def _run(self) -> None:
        pause = _PAUSE_SECONDS
        while self._once():
            self._stopped.wait(pause * random.uniform(0.5, 1.5))  # noqa: S311 - jitter
            pause = min(pause * 2, _PAUSE_MOST_SECONDS)

    def _once(self) -> bool:
        """Whether the thread is to go on; one that was used is as good as new, and ends."""
        used = False

        def taken() -> None:
            nonlocal used
            used = True
            with self._lock:
                self._idle -= 1
            self._begin()

        self._work(taken)
        with self._lock:
            if not (used or self.stopped):
                return True
            self._idle -= not used
            self._threads -= 1
        # It may have been the one too many that kept another from beginning.
        self._begin()
        return False
