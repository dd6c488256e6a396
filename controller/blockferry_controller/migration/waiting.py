"""Waiting for something outside: patient, jittered, stopped when asked.

The one loop behind every wait of the steps, so that no wait forgets its
deadline or a person's Ctrl-C.
"""

import random
import time
from collections.abc import Iterator

from blockferry_controller.migration.context import Context

FIRST_SECONDS = 0.05
LONGEST_SECONDS = 2.0


def attempts(context: Context, deadline_seconds: float) -> Iterator[float]:
    """Yield seconds waited so far, again and again, until the deadline has passed.

    Pauses grow from FIRST_SECONDS to LONGEST_SECONDS, each by up to a quarter
    shorter by chance.

    Raises:
        CancelledError, BusyError: as `Context.check`, between two attempts.
    """
    start = time.monotonic()
    pause = FIRST_SECONDS
    while (waited := time.monotonic() - start) < deadline_seconds:
        context.check()
        yield waited
        context.stop.wait(pause * random.uniform(0.75, 1.0))  # noqa: S311 - no secret
        pause = min(pause * 1.5, LONGEST_SECONDS)
