"""Many migrations at once: newest first in pages, never all in memory. See also fleet_listing.

Each query reads an index in the order that it answers in, so that a page costs the same
among 100 rows and among 100,000.
"""

from collections.abc import Iterator, Sequence
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.engine import Connection, Engine, RowMapping

from blockferry_controller.engine import tables as t
from blockferry_controller.engine.records import MigrationRecord
from blockferry_controller.engine.rows import legible, migration_of, select_migrations

PAGE: Final = 500
"""Rows that are read at once by who reads all."""


class Listing:
    """The migrations of one state database, many at a time. Thread-safe."""

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


def newest() -> sa.Select[Any]:
    """The query behind Listing.newest."""
    m = t.migrations.c
    return select_migrations().order_by(m.created_at.desc(), m.id.desc())


def oldest(after: tuple[Any, str] | None) -> sa.Select[Any]:
    """The query behind Listing.migrations."""
    m = t.migrations.c
    query = select_migrations().order_by(m.created_at, m.id)
    return query if after is None else query.where(sa.tuple_(m.created_at, m.id) > after)


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
