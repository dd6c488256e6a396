"""Many fleets, or volumes of one, at once: by the same rules as listing."""

from collections.abc import Iterator
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.engine import Engine

from blockferry_controller.engine import tables as t
from blockferry_controller.engine.fleet_records import (
    FleetLine,
    ItemRecord,
    ItemState,
    item_of,
    line_of,
)
from blockferry_controller.engine.lease import held
from blockferry_controller.engine.listing import PAGE

FIRST: Final = (ItemState.RUNNING, ItemState.FAILED, ItemState.WAITING, ItemState.CANCELLED,
                ItemState.SKIPPED, ItemState.SUCCEEDED)  # fmt: skip
"""What people look for first among a fleet's volumes."""


class FleetListing:
    """The fleets of one state database, many rows at a time. Thread-safe."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

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

    def count(self) -> int:
        """How many fleets there are."""
        with self._engine.connect() as connection:
            query = sa.select(sa.func.count()).select_from(t.fleets)
            return int(connection.execute(query).scalar_one())

    def newest(self, limit: int | None = None) -> list[FleetLine]:
        """The newest fleets, or all, the newest last: two queries, however many there are."""
        own = newest(t.fleets.c.id).limit(limit)
        items = t.fleet_items.c
        counted = sa.select(items.fleet_id, items.state, sa.func.count())
        counted = counted.where(items.fleet_id.in_(own)).group_by(items.fleet_id, items.state)
        counts: dict[str, dict[str, int]] = {}
        with self._engine.connect() as connection:
            rows = connection.execute(newest(*_LINE).limit(limit)).mappings().all()
            for fleet_id, state, count in connection.execute(counted):
                counts.setdefault(fleet_id, {})[state] = count
        return [line_of(row, counts.get(row["id"], {})) for row in reversed(rows)]


_LINE: Final = (
    *(column for column in t.fleets.c if column.name not in ("document", "settings")),
    held(t.fleets.c.expires_at),
)
"""Not what a file with 10,000 ids has to be read for."""


def newest(*columns: sa.ColumnElement[Any]) -> sa.Select[Any]:
    """The query behind FleetListing.newest."""
    return sa.select(*columns).order_by(t.fleets.c.created_at.desc(), t.fleets.c.id.desc())


def in_order(fleet_id: str, after: int) -> sa.Select[Any]:
    """The query behind FleetListing.all_volumes."""
    items = t.fleet_items.c
    query = sa.select(t.fleet_items).where(items.fleet_id == fleet_id, items.position > after)
    return query.order_by(items.position)


def volumes(fleet_id: str, state: ItemState) -> sa.Select[Any]:
    """The query behind FleetListing.volumes."""
    items = t.fleet_items.c
    query = sa.select(t.fleet_items).where(items.fleet_id == fleet_id, items.state == state.value)
    return query.order_by(items.position)
