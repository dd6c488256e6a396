"""Waiting for a cloud: for a state that is to come, and through outages.

Rules:
* No wait is longer than `progress_seconds` without any change of what is
  observed; with change it may last for hours (an image that is being fetched).
* An outage of the API is sat out for `outage_seconds`: services are restarted
  now and then while hours of copying go on (os-migrate#343, migratekit#65).
* Pauses grow and are jittered, so that many migrations do not poll in step.
* What was just made may not show for a moment: several API servers over a database
  that is copied asynchronously answer 404, or a list without it.
"""

from collections.abc import Callable
from typing import Final, TypeVar

from msgspec import Struct, field

from blockferry.errors import BlockferryError, DeadlineError
from blockferry_controller.clock import Backoff, Clock, SystemClock
from blockferry_controller.clouds.openstack.pace import LEAST_SECONDS, Pace
from blockferry_controller.clouds.openstack.refusals import TransientError

T = TypeVar("T")

LAG_SECONDS: Final = 10.0
"""How long something that exists may not show. Copies of a database lag by less than a
second when they are well (Galera and MySQL replication alike)."""


class Patience(Struct, frozen=True):
    """How long is waited. Thread-safe: each wait has its own backoff.

    Attributes:
        progress_seconds: Without a change of what is observed.
        outage_seconds: For which one call may fail again and again.
    """

    clock: Clock = field(default_factory=SystemClock)
    progress_seconds: float = 600
    outage_seconds: float = 120

    def through_outages(self, call: Callable[[], T]) -> T:
        """Repeat `call`, which must be idempotent, while it fails for the moment.

        Raises:
            UnreachableError: It still does after `outage_seconds`.
        """
        backoff = Backoff(self.clock, self.outage_seconds, first_seconds=0.5, most_seconds=10)
        while True:
            try:
                return call()
            except TransientError as error:
                if not backoff.pause():
                    raise error.lasting() from error
                self.clock.sleep(error.retry_after_seconds)

    def appearance(self, find: Callable[[], T | None]) -> T | None:
        """What `find` finds, within LAG_SECONDS; None when it still finds nothing."""
        backoff = Backoff(self.clock, LAG_SECONDS)
        while (found := find()) is None:
            if not backoff.pause():
                return None
        return found

    def showing(
        self,
        made: T,
        find: Callable[[], T | None],
        look: Callable[[], T | None],
        missing: Callable[[], BlockferryError],
    ) -> Callable[[], T]:
        """How to observe what was just made: as it was last, while it does not show.

        By `find`, which reads a list, until that shows it: the next call of its kind looks
        there, and would make another. By `look` from then on, and after LAG_SECONDS anyway.

        Args:
            made: As it was told when it was made.
            find: Looks for it in a list.
            look: Looks at it by its id.
            missing: The error for what does not show after LAG_SECONDS.
        """
        began = self.clock.monotonic()
        known, listed = made, False

        def observe() -> T:
            nonlocal known, listed
            late = self.clock.monotonic() - began >= LAG_SECONDS
            by_list = not listed and not late
            found = find() if by_list else look()
            if found is None and late:
                raise missing()
            if found is not None:
                known, listed = found, listed or by_list
            return known

        return observe

    def until(
        self,
        observe: Callable[[], T],
        settled: Callable[[T], bool],
        what: str,
        *,
        within_seconds: float | None = None,
        quiet: Callable[[], bool] = lambda: False,
        seen: T | None = None,
        pace: Pace | None = None,
    ) -> T:
        """Observe until it is settled, and return that.

        Args:
            observe: Looks once; may also nudge. What it returns is compared by
                `==`: a difference is progress.
            settled: Whether there is nothing to wait for; may raise.
            what: For the message, such as `volume 4f… to be available`.
            within_seconds: Instead of `progress_seconds`.
            quiet: Whether there is nothing new to be observed; see lookout.py.
            seen: What was observed just now, or is known from an answer: that look is saved.
            pace: How long it usually takes: the first look, or the first after one that
                showed it not settled, is made then.

        Raises:
            DeadlineError: CLOUD_STALLS, nothing changed for that time.
        """
        limit = self.progress_seconds if within_seconds is None else within_seconds
        began, looks = self.clock.monotonic(), 0
        first_seconds = LEAST_SECONDS if pace is None else pace.first_seconds()
        backoff = Backoff(self.clock, limit, first_seconds=max(LEAST_SECONDS, first_seconds / 2))
        seen = observe() if seen is None else seen
        while not settled(seen):
            if pace is not None and looks == 0:
                self.clock.sleep(min(first_seconds, limit))
            elif not backoff.pause():
                raise DeadlineError(
                    "CLOUD_STALLS",
                    f"Waited for {what}; nothing changed for {limit:.0f} s. "
                    "Look at the cloud's own state of it; `blockferry resume` tries again.",
                    waited_for=what,
                    seconds=limit,
                )
            looks += 1
            if quiet():
                continue
            now = observe()
            if now != seen:
                backoff.reset()
            seen = now
        if pace is not None and looks:
            pace.learn(self.clock.monotonic() - began, looks=looks)
        return seen
