"""SQLite connections of one process that take turns in writing.

SQLite has one writer at a time. Who finds another at it looks again after up to 100 ms
(https://www.sqlite.org/c3ref/busy_timeout.html), and gets the turn by luck: of a hundred
threads that write a row each, the database was idle most of the time and single ones waited
for half a minute. Here they wait for a lock, before SQLite sees them. Other processes are
still waited for as ever.
"""

import sqlite3
import threading
from collections.abc import Iterable
from typing import Any, Final

_WRITES: Final = ("INSERT", "UPDATE", "DELETE", "REPLACE", "BEGIN")


def taking_turns(wait_seconds: float) -> type[sqlite3.Connection]:
    """What sqlite3.connect takes as its `factory`: all made by one take turns.

    Args:
        wait_seconds: Longest wait for the turn; then as if another process were at it.
    """
    turn = threading.Lock()

    class Connection(_Connection):
        def take(self) -> None:
            if not turn.acquire(timeout=wait_seconds):
                raise sqlite3.OperationalError("database is locked")

        def give(self) -> None:
            turn.release()

    return Connection


class _Connection(sqlite3.Connection):
    """Has the turn from its first write until its transaction has ended."""

    _has_turn = False

    def take(self) -> None:
        raise NotImplementedError

    def give(self) -> None:
        raise NotImplementedError

    def before(self, statement: str) -> None:
        """A statement is to be executed."""
        if not self._has_turn and statement.lstrip()[:7].upper().startswith(_WRITES):
            self.take()
            self._has_turn = True

    def after(self) -> None:
        """Something was executed, well or not."""
        if self._has_turn and not self.in_transaction:
            self._has_turn = False
            self.give()

    def cursor(self, factory: Any = None) -> Any:
        return super().cursor(factory or _Cursor)

    def commit(self) -> None:
        try:
            super().commit()
        finally:
            self.after()

    def rollback(self) -> None:
        try:
            super().rollback()
        finally:
            self.after()

    def close(self) -> None:
        super().close()
        if self._has_turn:
            self._has_turn = False
            self.give()


class _Cursor(sqlite3.Cursor):
    """Tells its connection what it executes."""

    connection: _Connection

    def execute(self, statement: str, parameters: Any = ()) -> "_Cursor":
        self.connection.before(statement)
        try:
            return super().execute(statement, parameters)
        finally:
            self.connection.after()

    def executemany(self, statement: str, parameters: Iterable[Any]) -> "_Cursor":
        self.connection.before(statement)
        try:
            return super().executemany(statement, parameters)
        finally:
            self.connection.after()
