"""The state database while it does not answer, and what people are told of it then."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from sqlalchemy.exc import DBAPIError, InterfaceError, InternalError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from blockferry.errors import BlockferryError, BusyError, UnreachableError
from blockferry_controller.engine.locks import waited

AWAY: Final = (OperationalError, InterfaceError, InternalError, PoolTimeoutError)
"""What any call on the state raises while its database is not reached, or was not for so long
that it has ended our transaction (25P03 of PostgreSQL, an internal error to psycopg)."""

STATE_UNREACHABLE: Final = "STATE_UNREACHABLE"
STATE_LOCKED: Final = "STATE_LOCKED"
STATE_AWAY: Final = frozenset({STATE_UNREACHABLE, STATE_LOCKED})
"""What an attempt ends of while the state database is away: nothing is known against it."""
_SQLITE_LOCKED: Final = "database is locked"


@contextmanager
def explained() -> Iterator[None]:
    """Within it a database that is away raises an error of ours.

    Raises:
        UnreachableError: STATE_UNREACHABLE.
        BusyError: STATE_LOCKED, by somebody else, for BUSY_SECONDS or, where nothing is
            repeated, LOCK_SECONDS.
    """
    try:
        yield
    except AWAY as error:
        raise explain(error) from error


def reason_of(error: Exception) -> str:
    """What the database, or what speaks to it, says: a line, without our statement."""
    origin = error.orig if isinstance(error, DBAPIError) else error
    return (str(origin).strip() or type(origin).__name__).splitlines()[0]


def explain(error: Exception) -> BlockferryError:
    """The error of ours for one of AWAY."""
    why = reason_of(error)
    if _SQLITE_LOCKED in why or (isinstance(error, OperationalError) and waited(error)):
        return BusyError(
            STATE_LOCKED,
            f"the state database was locked for too long ({why}); where no other Blockferry is at "
            "work on it, one may have been stopped in the middle of a write (Ctrl-Z): let it go "
            "on (fg), or end it",
        )
    return UnreachableError(
        STATE_UNREACHABLE,
        f"the state database cannot be used: {why}; nothing of a migration is lost by that, try "
        "again once it can",
    )
