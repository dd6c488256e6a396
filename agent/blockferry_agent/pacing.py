"""How fast: the bandwidth limit, and the waits between tries."""

import random
import threading
from typing import Final

from blockferry_agent.pipeline import Closed
from blockferry_agent.ports import Clock

_BURST_SECONDS: Final = 0.25
"""A bucket holds this much of its rate, so that short pauses are made up for."""


class TokenBucket:
    """Bytes that may pass now. Pure: it is told the time.

    May run into debt: a message larger than the bucket passes whole, and the
    next one waits until the debt is paid. Not thread-safe.
    """

    def __init__(self, rate_bytes_per_second: int, now: float) -> None:
        self._rate = rate_bytes_per_second
        self._tokens = 0.0
        self._filled = now

    def set_rate(self, rate_bytes_per_second: int, now: float) -> None:
        """Change the rate from now on; 0 is unlimited and forgives the debt."""
        self._fill(now)
        self._rate = rate_bytes_per_second
        if rate_bytes_per_second == 0:
            self._tokens = 0.0

    def delay(self, now: float) -> float:
        """Seconds until the next message may pass; 0.0 when it may now."""
        self._fill(now)
        if self._rate == 0 or self._tokens >= 0:
            return 0.0
        return -self._tokens / self._rate

    def spend(self, amount_bytes: int) -> None:
        """Let a message pass."""
        if self._rate:
            self._tokens -= amount_bytes

    def _fill(self, now: float) -> None:
        gained = (now - self._filled) * self._rate
        self._tokens = min(self._tokens + gained, self._rate * _BURST_SECONDS)
        self._filled = now


class RateLimiter:
    """A token bucket that threads wait at. Thread-safe, adjustable while running."""

    def __init__(self, rate_bytes_per_second: int, clock: Clock) -> None:
        self._clock = clock
        self._bucket = TokenBucket(rate_bytes_per_second, clock.monotonic())
        self._changed = threading.Condition()
        self._closed = False
        self._waiting = 0

    @property
    def waiting(self) -> bool:
        """Whether somebody waits here now: slow on purpose, not stalled."""
        return self._waiting > 0

    def set_rate(self, rate_bytes_per_second: int) -> None:
        """Change the limit; who waits sees it at once. 0 is unlimited."""
        with self._changed:
            self._bucket.set_rate(rate_bytes_per_second, self._clock.monotonic())
            self._changed.notify_all()

    def take(self, amount_bytes: int) -> None:
        """Wait until `amount_bytes` may pass. Raises Closed."""
        with self._changed:
            self._waiting += 1
            try:
                while not self._closed and (delay := self._bucket.delay(self._clock.monotonic())):
                    self._changed.wait(delay)
            finally:
                self._waiting -= 1
            if self._closed:
                raise Closed
            self._bucket.spend(amount_bytes)

    def close(self, error: BaseException | None = None) -> None:
        """Wake and refuse everyone."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()


class Backoff:
    """Growing, jittered waits between tries. Not thread-safe."""

    def __init__(self, first_seconds: float = 0.1, most_seconds: float = 5.0) -> None:
        self._first = first_seconds
        self._most = most_seconds
        self._next = first_seconds

    def next_seconds(self) -> float:
        """How long to wait now: a random half to whole of a doubling time."""
        ceiling = self._next
        self._next = min(self._next * 2, self._most)
        return random.uniform(ceiling / 2, ceiling)  # noqa: S311 - not for secrets

    def reset(self) -> None:
        """After progress: begin again with the shortest wait."""
        self._next = self._first
