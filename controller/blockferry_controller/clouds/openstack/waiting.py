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
from dataclasses import dataclass, field
from typing import Final, TypeVar

from blockferry.errors import DeadlineError
from blockferry_controller.clock import Backoff, Clock, SystemClock
from blockferry_controller.clouds.openstack.refusals import TransientError

T = TypeVar("T")

LAG_SECONDS: Final = 10.0
"""How long something that exists may not show. Copies of a database lag by less than a
second when they are well (Galera and MySQL replication alike)."""


@dataclass(frozen=True, slots=True)
class Patience:
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

    def until(
        self,
        observe: Callable[[], T],
        settled: Callable[[T], bool],
        what: str,
        *,
        within_seconds: float | None = None,
        quiet: Callable[[], bool] = lambda: False,
    ) -> T:
        """Observe until it is settled, and return that.

        Args:
            observe: Looks once; may also nudge. What it returns is compared by
                `==`: a difference is progress.
            settled: Whether there is nothing to wait for; may raise.
            what: For the message, such as `volume 4f… to be available`.
            within_seconds: Instead of `progress_seconds`.
            quiet: Whether there is nothing new to be observed; see lookout.py.

        Raises:
            DeadlineError: CLOUD_STALLS, nothing changed for that time.
        """
        limit = self.progress_seconds if within_seconds is None else within_seconds
        backoff = Backoff(self.clock, limit)
        seen = observe()
        while not settled(seen):
            if not backoff.pause():
                raise DeadlineError(
                    "CLOUD_STALLS",
                    f"Waited for {what}; nothing changed for {limit:.0f} s. "
                    "Look at the cloud's own state of it; `blockferry resume` tries again.",
                    waited_for=what,
                    seconds=limit,
                )
            if quiet():
                continue
            now = observe()
            if now != seen:
                backoff.reset()
            seen = now
        return seen
