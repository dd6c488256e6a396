"""Time as flows see it: injected, so that no test sleeps and no wait is unbounded."""

import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol


class Clock(Protocol):
    """What waiting needs. Thread-safe."""

    def monotonic(self) -> float:
        """Seconds since an arbitrary point; never goes back."""
        ...

    def sleep(self, seconds: float) -> None:
        """Return after `seconds`, at least 0."""
        ...


class SystemClock:
    """The machine's own clock."""

    def monotonic(self) -> float:
        """See Clock."""
        return time.monotonic()

    def sleep(self, seconds: float) -> None:
        """See Clock."""
        time.sleep(seconds)


@dataclass(slots=True)
class Backoff:
    """Growing, jittered pauses between tries, for at most `limit_seconds` without success.

    Attributes:
        limit_seconds: Since the last `reset()`; after that `pause()` refuses.
        first_seconds: Mean of the first pause.
        factor: Each pause's mean is that of the one before times this.
        most_seconds: Mean of the longest pause.
        jitter: Picks a number in [0, 1).

    Not thread-safe: one object a waiter.
    """

    clock: Clock
    limit_seconds: float
    first_seconds: float = 0.2
    factor: float = 2.0
    most_seconds: float = 5.0
    jitter: Callable[[], float] = random.random
    _since: float = field(init=False)
    _next_seconds: float = field(init=False)

    def __post_init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Progress was made: count from now, start with a short pause again."""
        self._since = self.clock.monotonic()
        self._next_seconds = self.first_seconds

    def pause(self) -> bool:
        """Sleep a while, 50 to 150 % of the mean; False, at once, when time is up.

        The last pause is cut to end at the limit, so that one more try is made there.
        """
        left = self._since + self.limit_seconds - self.clock.monotonic()
        if left <= 0:
            return False
        self.clock.sleep(min(left, self._next_seconds * (0.5 + self.jitter())))
        self._next_seconds = min(self.most_seconds, self._next_seconds * self.factor)
        return True
