"""Waiting for what another process has locked in the state database, which may be cut off.

A statement that waits for a lock goes on waiting on PostgreSQL after its process was cut off,
is given the lock, and holds it until its silence is noticed; then the next in line is. A
process that moves a hundred volumes may have a dozen in one line. So:

* No statement waits for longer than LOCK_SECONDS. Those of the living come again; a line
  behind a lock that is held for longer has only them in it.
* What is done again is the whole transaction: nothing of it was written.
"""

import functools
import time
from collections.abc import Callable
from typing import Final, ParamSpec, TypeVar

from sqlalchemy.exc import OperationalError

LOCK_SECONDS: Final = 5.0
"""How long a statement waits on PostgreSQL."""
BUSY_SECONDS: Final = 30.0
"""How long a transaction waits for others, on either database."""
_LOCK_NOT_AVAILABLE: Final = "55P03"
"""https://www.postgresql.org/docs/current/errcodes-appendix.html"""

_P = ParamSpec("_P")
_R = TypeVar("_R")


def patient(transact: Callable[_P, _R]) -> Callable[_P, _R]:
    """Do it again where it waited for a lock for too long, for BUSY_SECONDS.

    Args:
        transact: One transaction, and nothing that must not be done twice.
    """

    @functools.wraps(transact)
    def again(*args: _P.args, **kwargs: _P.kwargs) -> _R:
        give_up_at = time.monotonic() + BUSY_SECONDS
        while True:
            try:
                return transact(*args, **kwargs)
            except OperationalError as error:
                if not waited(error) or time.monotonic() > give_up_at:
                    raise

    return again


def waited(error: OperationalError) -> bool:
    """Whether PostgreSQL ended a statement that had waited for a lock for LOCK_SECONDS."""
    return getattr(error.orig, "sqlstate", None) == _LOCK_NOT_AVAILABLE
