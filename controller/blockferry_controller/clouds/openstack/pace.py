"""When to look first whether something is done: learnt from how long it took before.

A cloud makes one volume as fast as another, more or less. Whoever looks at once and then again
and again asks it five times for what could be asked once; whoever looks too late wastes time.

Rules:
* A look that came too early makes the next first look later, by a part of what it was too early:
  one that took minutes is no reason to wait for minutes.
* One that did not makes it sooner by a little, so that it follows a cloud that gets faster, and
  is never late by much. Where durations do not vary, about one of six looks is too early.
* It decides when is looked, never what is believed.
"""

import random
import threading
from collections.abc import Callable
from typing import Final

LEAST_SECONDS: Final = 0.2
MOST_SECONDS: Final = 10.0
"""However long something takes: what is ready sooner is not to wait for longer."""
_LATER: Final = 0.4
_SOONER: Final = 0.96


class Pace:
    """How long one kind of change takes in one project. Thread-safe.

    Args:
        jitter: Picks a number in [0, 1).
    """

    def __init__(self, jitter: Callable[[], float] = random.random) -> None:
        self._jitter = jitter
        self._lock = threading.Lock()
        self._seconds = LEAST_SECONDS

    def first_seconds(self) -> float:
        """How long to wait before the first look; jittered, so that many do not look in step."""
        return self._seconds * (0.95 + 0.1 * self._jitter())

    def learn(self, seconds: float, *, looks: int) -> None:
        """Take in that a change was seen after so many seconds, at the last of `looks` looks."""
        with self._lock:
            if looks > 1:
                later = self._seconds + _LATER * max(0.0, seconds - self._seconds)
                self._seconds = min(MOST_SECONDS, later)
            else:
                self._seconds = max(LEAST_SECONDS, self._seconds * _SOONER)
