"""Fleets in the state database: what is to be moved, who drives it, what people want.

Rules:
* A fleet is driven by one process at a time, by lease; an item's way is a migration of
  the tables beside, driven by that migration's own lease and epoch.
* Who drives a fleet decides and moves nothing: state RUNNING offers an item, and any process
  takes it (engine/crew.py). It has the id of its migration before that.
* Every change of an item, or of what people want, and nothing else, raises the fleet's
  `version`, and the item remembers it: whoever drives the fleet reads, of 10,000 rows, those
  that have changed. The fleet's row is locked by that, so that versions are committed in order.
* What the driver writes it writes only while the lease is its own.
* All times are UTC; all calls are short transactions, from any thread.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import datetime, timezone
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection, Engine

from blockferry.errors import BusyError, NotFoundError, PreconditionError
from blockferry_controller.engine import tables as t
from blockferry_controller.engine.deliveries import enlist
from blockferry_controller.engine.fleet_notes import (
    count_items,
    note_asked,
    note_change,
    note_held,
    note_planned,
    note_state,
)
from blockferry_controller.engine.fleet_records import (
    FleetRecord,
    FleetWants,
    ItemRecord,
    ItemState,
    fleet_of,
    item_of,
    plain,
    row_of,
)
from blockferry_controller.engine.lease import Holder, alive, expiry, held
from blockferry_controller.engine.locks import patient
from blockferry_controller.engine.records import State


class Fleets:
    """The fleets of one state database. Thread-safe."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    # --- fleets ---------------------------------------------------------------------

    def create(
        self,
        fleet_id: str,
        route: tuple[str, str],
        document: Mapping[str, Any],
        settings: Mapping[str, Any],
        items: Sequence[ItemRecord],
        *,
        hooks: Collection[str] = (),
    ) -> None:
        """Remember a new fleet with all its items, or nothing of it.

        Args:
            fleet_id: Its name.
            route: Source and destination cloud.
            document: The fleet file as plain types.
            settings: What the configuration says.
            items: In the order of the plan.
            hooks: Names of who is to be told what happens.

        Raises:
            PreconditionError: FLEET_EXISTS.
        """
        now = _now()
        try:
            with self._engine.begin() as connection:
                connection.execute(
                    t.fleets.insert().values(
                        id=fleet_id, source=route[0], destination=route[1], document=document,
                        settings=settings, state=State.PENDING.value, message="", version=1,
                        created_at=now, updated_at=now,
                    )
                )  # fmt: skip
                rows = [row_of(fleet_id, item) for item in items]
                if rows:
                    connection.execute(t.fleet_items.insert(), rows)
                enlist(connection, fleet_id, hooks)
                note_planned(connection, fleet_id, [item.size_bytes for item in items])
        except sa.exc.IntegrityError as error:
            raise PreconditionError(
                "FLEET_EXISTS", f"there is a fleet {fleet_id} already", fleet=fleet_id
            ) from error

    @patient
    def describe(self, fleet_id: str, document: Mapping[str, Any], hooks: Collection[str]) -> None:
        """Replace the fleet file and its hooks; who drives it goes on with the former."""
        with self._engine.begin() as connection:
            connection.execute(_change(fleet_id, document=document))
            enlist(connection, fleet_id, hooks)

    def find(self, fleet_id: str) -> FleetRecord | None:
        """The fleet of this name; None when there is none."""
        with self._engine.connect() as connection:
            row = connection.execute(_fleets().where(t.fleets.c.id == fleet_id)).mappings().first()
            return None if row is None else fleet_of(row, count_items(connection, fleet_id))

    def get(self, fleet_id: str) -> FleetRecord:
        """The fleet of this name.

        Raises:
            NotFoundError: FLEET_NOT_FOUND.
        """
        found = self.find(fleet_id)
        if found is None:
            raise NotFoundError(
                "FLEET_NOT_FOUND",
                f"no fleet {fleet_id}; `blockferry batch FLEET.yaml` begins one",
                fleet=fleet_id,
            )
        return found

    @patient
    def set_state(self, fleet_id: str, state: State, message: str = "") -> None:
        """Move to `state`; final ones get an end."""
        ended = _now() if state in (State.SUCCEEDED, State.FAILED, State.CANCELLED) else None
        with self._engine.begin() as connection:
            connection.execute(_change(fleet_id, state=state.value, message=message,
                                       ended_at=ended))  # fmt: skip
            note_state(connection, fleet_id, state, message)

    def version(self, fleet_id: str) -> int:
        """Whether something changed from outside shows here first."""
        with self._engine.connect() as connection:
            query = sa.select(t.fleets.c.version).where(t.fleets.c.id == fleet_id)
            return int(connection.execute(query).scalar_one())

    # --- leases ---------------------------------------------------------------------

    @patient
    def acquire(self, fleet_id: str, holder: Holder) -> None:
        """Become the one that drives the fleet.

        Raises:
            BusyError: FLEET_BUSY, a live process drives it.
        """
        with self._engine.begin() as connection:
            # The write first: of two at once, one waits here and then sees.
            connection.execute(_change(fleet_id))
            row = connection.execute(_fleets().where(t.fleets.c.id == fleet_id)).mappings().one()
            if row["holder"] != str(holder) and alive(row):
                other = Holder.parse(row["holder"])
                raise BusyError(
                    "FLEET_BUSY",
                    f"fleet {fleet_id} is driven by another process ({other.words}); "
                    f"see `blockferry show {fleet_id}`",
                    fleet=fleet_id,
                )
            connection.execute(_change(fleet_id, holder=str(holder), expires_at=expiry()))

    @patient
    def release(self, fleet_id: str, holder: Holder) -> None:
        """Give the lease back. Idempotent."""
        mine = (t.fleets.c.id == fleet_id) & (t.fleets.c.holder == str(holder))
        with self._engine.begin() as connection:
            connection.execute(t.fleets.update().where(mine).values(holder="", expires_at=0.0))

    def open_fleets(self) -> dict[str, bool]:
        """Fleets that somebody began and that are not over; whether a live process drives each."""
        begun = t.fleets.c.state.in_((State.PENDING.value, State.RUNNING.value))
        with self._engine.connect() as connection:
            rows = connection.execute(_fleets().where(begun).order_by(t.fleets.c.created_at))
            return {row["id"]: alive(row) for row in rows.mappings()}

    def driven(self, fleet_id: str) -> bool:
        """Whether a live process drives it."""
        with self._engine.connect() as connection:
            row = connection.execute(_fleets().where(t.fleets.c.id == fleet_id)).mappings().one()
            return alive(row)

    # --- items ----------------------------------------------------------------------

    def items(self, fleet_id: str, *, since: int = -1) -> list[ItemRecord]:
        """All items, in the order of the plan; or those that changed after version `since`."""
        query = (
            sa.select(t.fleet_items)
            .where(t.fleet_items.c.fleet_id == fleet_id)
            .where(t.fleet_items.c.changed > since)
        )
        with self._engine.connect() as connection:
            rows = connection.execute(query.order_by(t.fleet_items.c.position)).mappings()
            return [item_of(row) for row in rows]

    def item(self, fleet_id: str, position: int) -> ItemRecord:
        """One item."""
        one = (t.fleet_items.c.fleet_id == fleet_id) & (t.fleet_items.c.position == position)
        with self._engine.connect() as connection:
            row = connection.execute(sa.select(t.fleet_items).where(one)).mappings().one()
            return item_of(row)

    @patient
    def change(
        self,
        fleet_id: str,
        driver: Holder,
        position: int,
        while_in: ItemState,
        **values: object,
    ) -> bool:
        """Change an item, by who drives the fleet; False when it is not in that state any more.

        Raises:
            BusyError: FLEET_LOST, `driver` does not drive the fleet any more.
        """
        with self._engine.connect() as connection, connection.begin() as transaction:
            changed = touch(connection, fleet_id, driver)
            written = connection.execute(
                _of(fleet_id, position)
                .where(t.fleet_items.c.state == while_in.value)
                .values(changed=changed, **plain(values))
            )
            if written.rowcount == 0:
                transaction.rollback()
                return False
            if "state" in values:
                note_change(connection, fleet_id, position)
            return True

    @patient
    def stop(self, fleet_id: str, driver: Holder, why: str, reason: str) -> None:
        """Take back what is offered, and have what is held stopped, without loss.

        Raises:
            BusyError: FLEET_LOST.
        """
        running = (t.fleet_items.c.fleet_id == fleet_id) & (
            t.fleet_items.c.state == ItemState.RUNNING.value
        )
        held = t.fleet_items.c.holder != ""
        told = {"why": why, "reason": reason}
        with self._engine.begin() as connection:
            changed = touch(connection, fleet_id, driver)
            connection.execute(
                t.fleet_items.update()
                .where(running & ~held)
                .values(state=ItemState.WAITING.value, changed=changed, **told)
            )
            connection.execute(
                t.fleet_items.update()
                .where(running & held & (t.fleet_items.c.why == ""))
                .values(changed=changed, **told)
            )
            note_held(connection, fleet_id, [(why, reason)])

    @patient
    def explain(
        self, fleet_id: str, driver: Holder, reasons: Mapping[int, tuple[str, str]]
    ) -> None:
        """Write why items wait: word and text, by position.

        Raises:
            BusyError: FLEET_LOST.
        """
        if not reasons:
            return
        with self._engine.begin() as connection:
            changed = touch(connection, fleet_id, driver)
            statement = (
                t.fleet_items.update()
                .where(t.fleet_items.c.fleet_id == fleet_id)
                .where(t.fleet_items.c.position == sa.bindparam("at"))
                .where(t.fleet_items.c.state == ItemState.WAITING.value)
                .values(why=sa.bindparam("word"), reason=sa.bindparam("text"), changed=changed)
            )
            rows = [{"at": at, "word": why, "text": text} for at, (why, text) in reasons.items()]
            connection.execute(statement, rows)
            note_held(connection, fleet_id, list(reasons.values()))

    @patient
    def put(
        self,
        fleet_id: str,
        positions: Iterable[int],
        state: ItemState,
        while_in: Sequence[ItemState],
        **values: object,
    ) -> int:
        """Move items to `state` from outside; those in other states than `while_in` stay.

        Returns:
            How many were moved.
        """
        moved = 0
        allowed = [one.value for one in while_in]
        with self._engine.connect() as connection, connection.begin() as transaction:
            changed = touch(connection, fleet_id)
            for position in positions:
                written = connection.execute(
                    _of(fleet_id, position)
                    .where(t.fleet_items.c.state.in_(allowed))
                    .values(state=state.value, changed=changed, **plain(values))
                ).rowcount
                if written:
                    note_change(connection, fleet_id, position, asked=True)
                moved += written
            if not moved:
                transaction.rollback()
        return moved

    # --- what people want -----------------------------------------------------------

    @patient
    def want(self, fleet_id: str, name: str, value: object) -> None:
        """Leave word: `paused`, `cancelled`, `limit`, or `approved:WAVE`; None takes it back."""
        mine = (t.fleet_wants.c.fleet_id == fleet_id) & (t.fleet_wants.c.want == name)
        with self._engine.begin() as connection:
            connection.execute(t.fleet_wants.delete().where(mine))
            if value is not None:
                connection.execute(
                    t.fleet_wants.insert().values(
                        fleet_id=fleet_id, want=name, value=value, asked_at=_now()
                    )
                )
            note_asked(connection, fleet_id, name, value)
            connection.execute(_change(fleet_id, version=t.fleets.c.version + 1))

    def wants(self, fleet_id: str) -> FleetWants:
        """Everything that is wanted."""
        query = sa.select(t.fleet_wants).where(t.fleet_wants.c.fleet_id == fleet_id)
        with self._engine.connect() as connection:
            found = {row["want"]: row["value"] for row in connection.execute(query).mappings()}
        prefix = "approved:"
        approved = (name.removeprefix(prefix) for name in found if name.startswith(prefix))
        limit = found.get("limit")
        return FleetWants(
            paused=bool(found.get("paused")),
            cancelled=bool(found.get("cancelled")),
            limit_bytes_per_second=None if limit is None else int(limit),
            approved=frozenset(approved),
        )


def touch(connection: Connection, fleet_id: str, driver: Holder | None = None) -> int:
    """Raise the fleet's version in the caller's transaction, and return it.

    Args:
        connection: Whose transaction it is; the fleet's row is locked until that ends.
        fleet_id: The fleet.
        driver: Who must drive it, to go on.

    Raises:
        BusyError: FLEET_LOST, `driver` does not.
    """
    change = _change(fleet_id, version=t.fleets.c.version + 1)
    if driver is not None:
        change = change.where(t.fleets.c.holder == str(driver))
    if not connection.execute(change).rowcount and driver is not None:
        said = f"another process drives fleet {fleet_id} now"
        raise BusyError("FLEET_LOST", said, fleet=fleet_id)
    query = sa.select(t.fleets.c.version).where(t.fleets.c.id == fleet_id)
    return int(connection.execute(query).scalar_one())


def _now() -> datetime:
    return datetime.now(timezone.utc)


def _fleets() -> sa.Select[Any]:
    return sa.select(t.fleets, held(t.fleets.c.expires_at))


def _change(fleet_id: str, **values: object) -> sa.Update:
    return t.fleets.update().where(t.fleets.c.id == fleet_id).values(updated_at=_now(), **values)


def _of(fleet_id: str, position: int) -> sa.Update:
    mine = (t.fleet_items.c.fleet_id == fleet_id) & (t.fleet_items.c.position == position)
    return t.fleet_items.update().where(mine)
