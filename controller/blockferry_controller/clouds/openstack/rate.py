"""How many calls a second a service gets from this process: a token bucket each.

Rules:
* A bucket holds the calls of BURST_SECONDS, however long nobody called. keystoneauth's own
  FairSemaphore has no such bound: it counts up while nobody calls, and after 3 idle seconds
  at 10 a second let 32 calls through in 0.2 s (5.18). So a bucket takes its place, where
  keystoneauth has one for it: what is passed as `rate_semaphore` is entered for all that goes
  over the wire, repetitions included. `rate_limit` of clouds.yaml is no way to set it either:
  openstacksdk hands it on as text, and keystoneauth divides by it (TypeError, 4.22).
* Calls are let through in the order in which they came.
* A service that says how long to wait (Retry-After) is left alone for so long by all who
  call it, not only by who was told. What was told on its way here counts as well: whoever
  slept for a token asks for another one when it wakes in such a time.
"""

import threading
from collections.abc import Mapping
from types import TracebackType
from typing import Final

from blockferry_controller.clock import Clock

BURST_SECONDS: Final = 2.0
"""A migration that boots its instances asks for some thirty things in its first seconds."""


class Bucket:
    """Lets callers through, a `with` block each. Thread-safe.

    Args:
        per_second: Calls, above 0.
        clock: Time and sleep.
    """

    def __init__(self, per_second: float, clock: Clock) -> None:
        self._interval = 1.0 / per_second
        # At least one: less than a call would be none at all.
        self._burst_seconds = max(BURST_SECONDS - self._interval, 0.0)
        self._clock = clock
        self._lock = threading.Lock()
        self._next_at = 0.0
        self._closed_until = 0.0

    def __enter__(self) -> None:
        while (wait := self._reserve()) > 0:
            self._clock.sleep(wait)
            with self._lock:
                if self._clock.monotonic() >= self._closed_until:
                    return

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """A call counts when it begins; that it has ended changes nothing."""

    def hold(self, seconds: float) -> None:
        """Let nobody through for so long, and then one by one: what was saved up is gone."""
        with self._lock:
            until = self._clock.monotonic() + seconds
            self._closed_until = max(self._closed_until, until)

    def _reserve(self) -> float:
        """Take the next token; in how many seconds it is there."""
        with self._lock:
            now = self._clock.monotonic()
            at = max(self._next_at, now - self._burst_seconds, self._closed_until)
            self._next_at = at + self._interval
            return at - now


def buckets(per_second: Mapping[str, float], clock: Clock) -> dict[str, Bucket]:
    """A bucket for each service, by the same names."""
    return {name: Bucket(rate, clock) for name, rate in per_second.items()}
