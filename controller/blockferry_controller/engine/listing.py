"""Many migrations, or volumes of a fleet, at once: newest first in pages, never all in memory.

Each query reads an index in the order that it answers in, so that a page costs the same
among 100 rows and among 100,000.
"""

from collections.abc import Iterator, Sequence
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.engine import Connection, Engine, RowMapping

from blockferry_controller.engine import tables as t
from blockferry_controller.engine.fleet_records import (
    FleetLine,
    ItemRecord,
    ItemState,
    item_of,
    line_of,
)
from blockferry_controller.engine.lease import held
from blockferry_controller.engine.records import MigrationRecord
from blockferry_controller.engine.rows import legible, migration_of, select_migrations

PAGE: Final = 500
"""Rows that are read at once by who reads all."""
FIRST: Final = (ItemState.RUNNING, ItemState.FAILED, ItemState.WAITING, ItemState.CANCELLED,
                ItemState.SKIPPED, ItemState.SUCCEEDED)  # fmt: skip
"""What people look for first among a fleet's volumes."""


class Listing:
    """The rows of one state database, many at a time. Thread-safe."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def count(self) -> int:
        """How many migrations there are."""
        with self._engine.connect() as connection:
            query = sa.select(sa.func.count()).select_from(t.migrations)
            return int(connection.execute(query).scalar_one())

    def newest(self, limit: int) -> list[MigrationRecord]:
        """The newest migrations, the newest last, without their steps."""
        with self._engine.connect() as connection, legible():
            rows = connection.execute(newest().limit(limit)).mappings().all()
            return [migration_of(row) for row in reversed(rows)]

    def migrations(self) -> Iterator[MigrationRecord]:
        """All migrations, newest last, without their steps; no transaction stays open between."""
        after: tuple[Any, str] | None = None
        while True:
            with self._engine.connect() as connection, legible():
                rows = connection.execute(oldest(after).limit(PAGE)).mappings().all()
                page = [migration_of(row) for row in rows]
            yield from page
            if len(page) < PAGE:
                return
            after = rows[-1]["created_at"], rows[-1]["id"]

    def all_volumes(self, fleet_id: str) -> Iterator[ItemRecord]:
        """All volumes of a fleet, in the order of the plan."""
        after = -1
        while True:
            query = in_order(fleet_id, after).limit(PAGE)
            with self._engine.connect() as connection:
                page = [item_of(row) for row in connection.execute(query).mappings()]
            yield from page
            if len(page) < PAGE:
                return
            after = page[-1].position

    def volumes(self, fleet_id: str, limit: int) -> list[ItemRecord]:
        """At most so many volumes of a fleet, by FIRST, then in the order of the plan."""
        found: list[ItemRecord] = []
        with self._engine.connect() as connection:
            for state in FIRST:
                query = volumes(fleet_id, state).limit(limit - len(found))
                found += [item_of(row) for row in connection.execute(query).mappings()]
        return found

    def count_fleets(self) -> int:
        """How many fleets there are."""
        with self._engine.connect() as connection:
            query = sa.select(sa.func.count()).select_from(t.fleets)
            return int(connection.execute(query).scalar_one())

    def fleets(self, limit: int | None = None) -> list[FleetLine]:
        """The newest fleets, or all, the newest last: two queries, however many there are."""
        own = newest_fleets(t.fleets.c.id).limit(limit)
        items = t.fleet_items.c
        counted = sa.select(items.fleet_id, items.state, sa.func.count())
        counted = counted.where(items.fleet_id.in_(own)).group_by(items.fleet_id, items.state)
        counts: dict[str, dict[str, int]] = {}
        with self._engine.connect() as connection:
            rows = connection.execute(newest_fleets(*_LINE).limit(limit)).mappings().all()
            for fleet_id, state, count in connection.execute(counted):
                counts.setdefault(fleet_id, {})[state] = count
        return [line_of(row, counts.get(row["id"], {})) for row in reversed(rows)]


_LINE: Final = (
    *(column for column in t.fleets.c if column.name not in ("document", "settings")),
    held(t.fleets.c.expires_at),
)
"""Not what a file with 10,000 ids has to be read for."""


def newest_fleets(*columns: sa.ColumnElement[Any]) -> sa.Select[Any]:
    """The query behind Listing.fleets."""
    return sa.select(*columns).order_by(t.fleets.c.created_at.desc(), t.fleets.c.id.desc())


def newest() -> sa.Select[Any]:
    """The query behind Listing.newest."""
    m = t.migrations.c
    return select_migrations().order_by(m.created_at.desc(), m.id.desc())


def oldest(after: tuple[Any, str] | None) -> sa.Select[Any]:
    """The query behind Listing.migrations."""
    m = t.migrations.c
    query = select_migrations().order_by(m.created_at, m.id)
    return query if after is None else query.where(sa.tuple_(m.created_at, m.id) > after)


def in_order(fleet_id: str, after: int) -> sa.Select[Any]:
    """The query behind Listing.all_volumes."""
    items = t.fleet_items.c
    query = sa.select(t.fleet_items).where(items.fleet_id == fleet_id, items.position > after)
    return query.order_by(items.position)


def volumes(fleet_id: str, state: ItemState) -> sa.Select[Any]:
    """The query behind Listing.volumes."""
    items = t.fleet_items.c
    query = sa.select(t.fleet_items).where(items.fleet_id == fleet_id, items.state == state.value)
    return query.order_by(items.position)


def named(connection: Connection, reference: str) -> Sequence[RowMapping]:
    """The migration with this id, or else up to three whose ids begin with it."""
    own = t.migrations.c.id
    exact = connection.execute(select_migrations().where(own == reference)).mappings().all()
    return exact or connection.execute(beginning(connection, reference)).mappings().all()


def beginning(connection: Connection, reference: str) -> sa.Select[Any]:
    """The query for a reference that is no id."""
    own = t.migrations.c.id
    query = select_migrations().where(own.startswith(reference, autoescape=True)).limit(3)
    if connection.dialect.name == "sqlite":
        # Its LIKE looks at no index; its order is that of bytes, and no id has one above "z".
        query = query.where(own.between(reference, reference + "~"))
    return query
