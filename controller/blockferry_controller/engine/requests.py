"""What people want of a migration, from whatever process: cancelled, paused, slower.

Rules:
* A request says what is to hold, not what to do: asking twice is asking once, and
  the last word counts. It is durable, so it also reaches a controller that starts later.
* Whoever drives the migration reads (migration/steps/steer.py) and answers; an answer
  belongs to the value that it was read with, never to a later one.
* A new attempt is neither cancelled nor paused; a limit stays until it is changed.
"""

from collections.abc import Mapping
from datetime import datetime, timezone
from enum import Enum
from typing import Any, Final, TypeAlias

import sqlalchemy as sa
from msgspec import Struct, field
from sqlalchemy.engine import Connection, Engine

from blockferry_controller.engine import tables as t

Value: TypeAlias = bool | int


class Want(str, Enum):
    """What can be asked for; in brackets the type of its value."""

    CANCELLED = "cancelled"
    """(bool) Ended for good, everything removed."""
    PAUSED = "paused"
    """(bool) Nothing is sent."""
    LIMIT = "limit"
    """(int) Bytes per second on the wire; 0 is unlimited."""


class Request(Struct, frozen=True):
    """One want of one migration.

    Attributes:
        value: As Want says.
        asked_at: When this value was asked for first; UTC.
        answered_at: When the driving controller had acted on it; None before.
        answer: What became of it, for people; empty before, and when it is in force.
    """

    want: Want
    value: Value
    asked_at: datetime
    answered_at: datetime | None = None
    answer: str = ""


class Wants(Struct, frozen=True):
    """All that is wanted of a migration."""

    by_want: Mapping[Want, Request] = field(default_factory=dict)

    @property
    def cancelled(self) -> bool:
        """Whether it is to end for good."""
        return bool(self._value(Want.CANCELLED))

    @property
    def paused(self) -> bool:
        """Whether it is to send nothing."""
        return bool(self._value(Want.PAUSED))

    @property
    def limit_bytes_per_second(self) -> int | None:
        """The limit that replaces the one of the spec; None: nobody asked for another."""
        value = self._value(Want.LIMIT)
        return None if value is None else int(value)

    def _value(self, want: Want) -> Value | None:
        request = self.by_want.get(want)
        return None if request is None else request.value


_ENDS_WITH_ATTEMPT: Final = (Want.CANCELLED.value, Want.PAUSED.value)


class Requests:
    """The requests of one state database. Thread-safe."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def ask(self, migration_id: str, want: Want, value: Value) -> Request:
        """Leave word; returns what is written now, perhaps answered already."""
        with self._engine.begin() as connection:
            known = _read(connection, migration_id).get(want)
            if known is not None and known.value == value:
                return known
            fresh = Request(want, value, datetime.now(timezone.utc))
            connection.execute(t.requests.delete().where(_one(migration_id, want)))
            connection.execute(
                t.requests.insert().values(
                    migration_id=migration_id, want=want.value, value=value,
                    asked_at=fresh.asked_at, answer="",
                )
            )  # fmt: skip
            return fresh

    def read(self, migration_id: str) -> Wants:
        """Everything that is wanted of a migration."""
        with self._engine.connect() as connection:
            return read_wants(connection, migration_id)

    def answer(self, migration_id: str, request: Request, answer: str = "") -> None:
        """Say that `request` is in force, or in `answer` why it never will be."""
        with self._engine.begin() as connection:
            known = _read(connection, migration_id).get(request.want)
            if known is not None and known.value == request.value and known.answered_at is None:
                connection.execute(
                    t.requests.update()
                    .where(_one(migration_id, request.want))
                    .values(answered_at=datetime.now(timezone.utc), answer=answer)
                )


def read_wants(connection: Connection, migration_id: str) -> Wants:
    """Everything that is wanted of a migration, in the caller's transaction."""
    return Wants(_read(connection, migration_id))


def forget_requests(connection: Connection, migration_id: str) -> None:
    """Drop what holds for one attempt only, in the transaction that begins the next."""
    mine = t.requests.c.migration_id == migration_id
    ends = t.requests.c.want.in_(_ENDS_WITH_ATTEMPT)
    connection.execute(t.requests.delete().where(mine & ends))


def _one(migration_id: str, want: Want) -> sa.ColumnElement[bool]:
    return (t.requests.c.migration_id == migration_id) & (t.requests.c.want == want.value)


def _read(connection: Connection, migration_id: str) -> dict[Want, Request]:
    query = sa.select(t.requests).where(t.requests.c.migration_id == migration_id)
    found: dict[Want, Request] = {}
    for row in connection.execute(query).mappings():
        want = Want(row["want"])
        found[want] = Request(
            want, row["value"], _utc(row["asked_at"]), _utc(row["answered_at"]), row["answer"]
        )
    return found


def _utc(moment: Any) -> Any:
    """SQLite keeps no time zone; what is stored is always UTC."""
    return moment.replace(tzinfo=timezone.utc) if moment and moment.tzinfo is None else moment
