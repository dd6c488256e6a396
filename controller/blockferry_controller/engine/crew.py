"""The processes that move volumes of fleets, and which volume each of them has taken.

Rules:
* A process has one lease for all it does for fleets; it renews that and the leases of the
  fleets that it drives together. What it has taken is its own as long as that lease lives.
* An item in state RUNNING without a holder is offered: whoever has room takes it, by one
  conditional UPDATE, so that of two one gets it.
* What became of an item is written only by who still holds it: a process that was cut off
  and comes back changes nothing of what others have gone on with.
* What a migration does is fenced by its own lease and epoch (engine/state.py) all the same.
"""

from typing import Any, Final

import sqlalchemy as sa
from msgspec import Struct
from sqlalchemy.engine import Connection, Engine

from blockferry_controller.engine import tables as t
from blockferry_controller.engine.fleet_notes import note_change
from blockferry_controller.engine.fleet_records import ItemState, plain
from blockferry_controller.engine.fleets import touch
from blockferry_controller.engine.lease import Holder, expiry, unexpired
from blockferry_controller.engine.locks import patient

_ITEMS: Final = t.fleet_items.c


class Taken(Struct, frozen=True):
    """An item that may run, or runs.

    Attributes:
        holder: Who has taken it; empty while it is offered.
        why, reason: Why it is to be stopped; empty while it is not.
    """

    fleet_id: str
    position: int
    migration_id: str
    holder: str
    why: str
    reason: str


class Crew:
    """All such processes of one state database. Thread-safe."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    @patient
    def join(self, holder: Holder, room: int) -> None:
        """Become one of them, for as long as the lease is renewed.

        Args:
            holder: A process, not of them yet.
            room: How many volumes it moves at a time.
        """
        with self._engine.begin() as connection:
            connection.execute(t.workers.delete().where(~unexpired(t.workers.c.expires_at)))
            connection.execute(
                t.workers.insert().values(holder=str(holder), room=room, expires_at=expiry())
            )

    @patient
    def renew(self, holder: Holder) -> bool:
        """Prolong the leases of the process and its fleets; False when they were lost."""
        mine = t.workers.c.holder == str(holder)
        with self._engine.begin() as connection:
            changed = connection.execute(
                t.workers.update()
                .where(mine & unexpired(t.workers.c.expires_at))
                .values(expires_at=expiry())
            )
            if changed.rowcount == 1:
                driven = t.fleets.c.holder == str(holder)
                connection.execute(t.fleets.update().where(driven).values(expires_at=expiry()))
            return changed.rowcount == 1

    @patient
    def leave(self, holder: Holder) -> None:
        """Be none of them any more; what is still held is offered. Idempotent."""
        with self._engine.begin() as connection:
            connection.execute(t.workers.delete().where(t.workers.c.holder == str(holder)))
            _offer(connection, _ITEMS.holder == str(holder))

    def alive(self) -> list[str]:
        """Who is one of them now."""
        with self._engine.connect() as connection:
            return _alive(connection)

    @patient
    def offer_what_the_dead_held(self) -> int:
        """Offer items whose holder is dead or cut off again; how many there were."""
        with self._engine.connect() as connection:
            running = _ITEMS.state == ItemState.RUNNING.value
            query = sa.select(_ITEMS.holder).where(running & (_ITEMS.holder != "")).distinct()
            holders = set(connection.scalars(query))
            dead = holders.difference(_alive(connection))
        if not dead:
            return 0
        with self._engine.begin() as connection:
            # Their own lease goes with it: one that wakes now finds that it has lost it.
            connection.execute(t.workers.delete().where(t.workers.c.holder.in_(dead)))
            return _offer(connection, _ITEMS.holder.in_(dead))

    def taken(self) -> list[Taken]:
        """All items that may run, or run, of all fleets."""
        columns = [_ITEMS[name] for name in Taken.__struct_fields__]
        query = sa.select(*columns).where(_ITEMS.state == ItemState.RUNNING.value)
        with self._engine.connect() as connection:
            return [Taken(*row) for row in connection.execute(query)]

    def through(self, fleet_id: str, step: str) -> frozenset[str]:
        """Those migrations of what may run of a fleet whose present attempt has done `step`."""
        running = (_ITEMS.fleet_id == fleet_id) & (_ITEMS.state == ItemState.RUNNING.value)
        migrations, steps = t.migrations.c, t.steps.c
        this_attempt = (steps.migration_id == migrations.id) & (steps.epoch == migrations.epoch)
        query = (
            sa.select(migrations.id)
            .join(t.fleet_items, _ITEMS.migration_id == migrations.id)
            .join(t.steps, this_attempt)
            .where(running & (steps.name == step))
        )
        with self._engine.connect() as connection:
            return frozenset(connection.scalars(query))

    def take(self, fleet_id: str, position: int, holder: Holder) -> bool:
        """Take an item that is offered; False when it is not, or the process is cut off."""
        mine = t.workers.c.holder == str(holder)
        live = sa.exists().where(mine & unexpired(t.workers.c.expires_at))
        return self._write(fleet_id, position, "", live, holder=str(holder))

    def give_back(self, fleet_id: str, position: int, holder: Holder, **values: object) -> bool:
        """Write what became of an item; False, and nothing, when it is `holder`'s no more."""
        return self._write(fleet_id, position, str(holder), sa.true(), holder="", **values)

    @patient
    def _write(
        self,
        fleet_id: str,
        position: int,
        held_by: str,
        condition: sa.ColumnElement[bool],
        **values: object,
    ) -> bool:
        one = (_ITEMS.fleet_id == fleet_id) & (_ITEMS.position == position)
        held = (_ITEMS.state == ItemState.RUNNING.value) & (_ITEMS.holder == held_by)
        with self._engine.connect() as connection, connection.begin() as transaction:
            changed = touch(connection, fleet_id)
            written = connection.execute(
                t.fleet_items.update()
                .where(one & held & condition)
                .values(changed=changed, **plain(values))
            )
            if written.rowcount == 0:
                # Of ten that take an item nine get nothing: nobody needs to look for that.
                transaction.rollback()
                return False
            if "state" in values:
                note_change(connection, fleet_id, position)
            return True


def _alive(connection: Connection) -> list[str]:
    query = sa.select(t.workers.c.holder).where(unexpired(t.workers.c.expires_at))
    return [one for one in connection.scalars(query) if not Holder.parse(one).dead]


def _offer(connection: Connection, whose: sa.ColumnElement[bool]) -> int:
    held: Any = whose & (_ITEMS.state == ItemState.RUNNING.value)
    # In one order: of two that do this at once, one waits for the other.
    fleets = connection.scalars(sa.select(_ITEMS.fleet_id).where(held).distinct())
    offered = 0
    for fleet_id in sorted(fleets):
        changed = touch(connection, fleet_id)
        offered += connection.execute(
            t.fleet_items.update()
            .where(held & (_ITEMS.fleet_id == fleet_id))
            .values(holder="", changed=changed)
        ).rowcount
    return offered
