"""What has happened, as rows: written with what they tell of, in one transaction.

Rules:
* A row is written by whoever changes the state, in the same transaction: what is told has
  happened, and what has happened is told, whenever a process dies.
* Rows of a fleet and its volumes are written one after another, also by several processes:
  their `number` grows in the order of their commits, and who has read up to one has read all
  below it (fleet/hooks/ depends on that).
* It is bounded: of each migration, and of each fleet itself, the newest MOST_OF_ONE are kept,
  and older ones that a hook of the fleet has not been told. There are as many of these as
  happens in the time of a hook's tries: what it does not take is given up, and then told.
"""

import uuid
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timezone
from typing import Any, Final

import sqlalchemy as sa
from msgspec import Struct
from sqlalchemy.engine import Connection, Engine, RowMapping

from blockferry_controller.engine import tables as t
from blockferry_controller.engine.occurrences import Occurrence, OfFleet, OfMigration, data, word

MOST_OF_ONE: Final = 1000
PAGE: Final = 500
"""Rows that are read at once."""


class Entry(Struct, frozen=True):
    """Something that has happened.

    Attributes:
        number: Grows; unique in the database.
        id: Unique everywhere, and the same however often the event is told.
        event: See occurrences.WORDS.
        data: The event's fields.
        fleet: Empty for what belongs to none; likewise `migration`.
        volume_id, name, wave, size_bytes: Of the fleet's volume that it is about, if any.
    """

    number: int
    id: str
    time: datetime
    event: str
    data: Mapping[str, Any]
    fleet: str = ""
    migration: str = ""
    volume_id: str = ""
    name: str = ""
    wave: str = ""
    size_bytes: int = 0

    def document(self) -> dict[str, Any]:
        """The event as `history -o json` writes it and hooks are told it (docs/hooks.md)."""
        volume = {
            "id": self.volume_id,
            "name": self.name,
            "size_bytes": self.size_bytes,
            "wave": self.wave,
        }
        return {
            "id": self.id,
            "time": self.time.isoformat(timespec="milliseconds"),
            "event": self.event,
            "fleet": self.fleet or None,
            "migration": self.migration or None,
            "volume": volume if self.volume_id else None,
            "data": dict(self.data),
        }


class History:
    """The history of one state database, to be read. Thread-safe."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def newest(
        self, *, fleet: str = "", migration: str = "", since: datetime | None = None
    ) -> Iterator[Entry]:
        """What happened, newest first, read in pages.

        Args:
            fleet: Only of this fleet and its volumes.
            migration: Only of this one.
            since: Not what is older; UTC.
        """
        before: tuple[datetime, int] | None = None
        while True:
            query = newest(fleet, migration, since, before).limit(PAGE)
            with self._engine.connect() as connection:
                page = [_entry(row) for row in connection.execute(query).mappings()]
            yield from page
            if len(page) < PAGE:
                return
            before = page[-1].time, page[-1].number

    def of_fleet(
        self, fleet: str, after: int, limit: int, events: Sequence[str] = ()
    ) -> list[Entry]:
        """What happened in a fleet after the row of that number, oldest first.

        Args:
            fleet: Its id.
            after: 0: from the beginning.
            limit: At most so many.
            events: Only these words; none: all.
        """
        with self._engine.connect() as connection:
            found = connection.execute(after_number(fleet, after, events).limit(limit))
            return [_entry(row) for row in found.mappings()]

    def last_number(self, fleet: str) -> int:
        """Number of what happened in a fleet last; 0 before anything did."""
        query = sa.select(sa.func.max(t.history.c.number)).where(t.history.c.fleet_id == fleet)
        with self._engine.connect() as connection:
            return int(connection.execute(query).scalar_one() or 0)


def newest(
    fleet: str = "",
    migration: str = "",
    since: datetime | None = None,
    before: tuple[datetime, int] | None = None,
) -> sa.Select[Any]:
    """The query behind History.newest; `before`: time and number of the last of a page."""
    query = _told()
    if fleet:
        query = query.where(t.history.c.fleet_id == fleet)
    if migration:
        query = query.where(t.history.c.migration_id == migration)
    if since is not None:
        query = query.where(t.history.c.at >= since)
    if before is not None:
        query = query.where(sa.tuple_(t.history.c.at, t.history.c.number) < before)
    return query.order_by(t.history.c.at.desc(), t.history.c.number.desc())


def after_number(fleet: str, number: int, events: Sequence[str]) -> sa.Select[Any]:
    """The query behind History.of_fleet."""
    query = _told().where(t.history.c.fleet_id == fleet, t.history.c.number > number)
    if events:
        query = query.where(t.history.c.event.in_(events))
    return query.order_by(t.history.c.number)


def note_migration(connection: Connection, migration_id: str, what: OfMigration) -> None:
    """Write down what happened to a migration; if it is a fleet's, to a volume of it."""
    items = t.fleet_items.c
    query = sa.select(items.fleet_id, items.position).where(items.migration_id == migration_id)
    owner = connection.execute(query.limit(1)).one_or_none()
    fleet, position = ("", None) if owner is None else owner
    _note(connection, what, fleet, migration_id, position)


def note_volume(connection: Connection, item: RowMapping, what: Occurrence) -> None:
    """Write down what happened to a volume of a fleet, a row of fleet_items."""
    _note(connection, what, item["fleet_id"], item["migration_id"], item["position"])


def note_fleet(connection: Connection, fleet_id: str, what: OfFleet) -> None:
    """Write down what happened to a fleet."""
    _note(connection, what, fleet_id, "", None)


def last_event(connection: Connection, migration_id: str) -> Entry | None:
    """What was written down of a migration last."""
    row = connection.execute(newest(migration=migration_id).limit(1)).mappings().one_or_none()
    return None if row is None else _entry(row)


def last_of_fleet(connection: Connection, fleet_id: str) -> tuple[str, Mapping[str, Any]] | None:
    """Word and data of what was written down of the fleet itself last."""
    h = t.history.c
    query = sa.select(h.event, h.data).where(h.migration_id == "", h.fleet_id == fleet_id)
    query = query.where(h.position.is_(None)).order_by(h.number.desc()).limit(1)
    row = connection.execute(query).one_or_none()
    return None if row is None else (row[0], row[1])


def _note(
    connection: Connection, what: Occurrence, fleet: str, migration: str, position: int | None
) -> None:
    if fleet:
        # Numbers are given out in here only: on PostgreSQL a later one could be seen first.
        lock = sa.select(t.fleets.c.id).where(t.fleets.c.id == fleet)
        connection.execute(lock.with_for_update(key_share=True))
    connection.execute(
        t.history.insert().values(
            id=uuid.uuid4().hex, at=datetime.now(timezone.utc), fleet_id=fleet,
            migration_id=migration, position=position, event=word(what), data=data(what),
        )
    )  # fmt: skip
    _forget_the_oldest(connection, fleet, migration)


def _forget_the_oldest(connection: Connection, fleet: str, migration: str) -> None:
    h = t.history.c
    own = (h.migration_id == migration) & (h.fleet_id == fleet)
    kept = sa.select(h.number).where(own).order_by(h.number.desc()).offset(MOST_OF_ONE).limit(1)
    oldest = connection.execute(kept).scalar_one_or_none()
    if oldest is None:
        return
    slowest = sa.select(sa.func.min(t.hooks.c.reached)).where(t.hooks.c.fleet_id == fleet)
    reached = connection.execute(slowest).scalar_one()
    told = oldest if reached is None else min(oldest, reached)
    connection.execute(t.history.delete().where(own & (h.number <= told)))


def _told() -> sa.Select[Any]:
    items = t.fleet_items.c
    mine = (items.fleet_id == t.history.c.fleet_id) & (items.position == t.history.c.position)
    about = items.volume_id, items.name, items.wave, items.size_bytes
    return sa.select(t.history, *about).outerjoin(t.fleet_items, mine)


def _entry(row: RowMapping) -> Entry:
    at: datetime = row["at"]
    return Entry(
        number=row["number"], id=row["id"],
        # SQLite keeps no time zone; what is stored is always UTC.
        time=at.replace(tzinfo=timezone.utc) if at.tzinfo is None else at,
        event=row["event"], data=row["data"], fleet=row["fleet_id"],
        migration=row["migration_id"], volume_id=row["volume_id"] or "", name=row["name"] or "",
        wave=row["wave"] or "", size_bytes=row["size_bytes"] or 0,
    )  # fmt: skip
