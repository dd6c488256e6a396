"""How far each hook of a fleet has been told its history; see fleet/hooks/courier.py."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any, Final

import sqlalchemy as sa
from msgspec import Struct
from sqlalchemy.engine import Connection, Engine

from blockferry_controller.engine import tables as t
from blockferry_controller.engine.history import Entry
from blockferry_controller.engine.lease import alive, expiry, held

MOST_LOST: Final = 100
"""Events that were given up and are named; beyond that only counted, the newest are kept."""


class Standing(Struct, frozen=True):
    """How a hook stands.

    Attributes:
        delivered: Events that it has taken.
        given_up: Events that it never took.
        error: Why the last that failed did; empty when the last was delivered.
        lost: Some that were given up: `id`, `event`, `time`, `error`.
    """

    hook: str
    delivered: int = 0
    given_up: int = 0
    error: str = ""
    lost: Sequence[Mapping[str, str]] = ()


class Deliveries:
    """The hooks of one state database. Thread-safe."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def claim(self, fleet: str, hook: str, holder: str, seconds: float) -> bool:
        """Become, or stay, the one that delivers to it; False: another process does."""
        values = {"holder": holder, "expires_at": expiry(seconds)}
        query = sa.select(t.hooks.c.holder, held(t.hooks.c.expires_at)).where(_one(fleet, hook))
        try:
            with self._engine.begin() as connection:
                row = connection.execute(query).mappings().one_or_none()
                if row is None:
                    connection.execute(t.hooks.insert().values(**_fresh(fleet, hook), **values))
                    return True
                known = row["holder"]
                if known != holder and alive(row):
                    return False
                # Of two who see it free at once, the second finds another holder.
                own = t.hooks.update().where(_one(fleet, hook), t.hooks.c.holder == known)
                return connection.execute(own.values(**values)).rowcount == 1
        except sa.exc.IntegrityError:
            # Another was first, in the same moment.
            return False

    def release(self, fleet: str, hook: str, holder: str) -> None:
        """Let others deliver. Idempotent."""
        with self._engine.begin() as connection:
            mine = t.hooks.update().where(_one(fleet, hook), t.hooks.c.holder == holder)
            connection.execute(mine.values(holder="", expires_at=0.0))

    def reached(self, fleet: str, hook: str) -> int:
        """Number of the last event that is settled; 0 before the first."""
        with self._engine.connect() as connection:
            query = sa.select(t.hooks.c.reached).where(_one(fleet, hook))
            return int(connection.execute(query).scalar_one_or_none() or 0)

    def told(self, fleet: str, hook: str, entry: Entry, error: str) -> None:
        """An event is settled: delivered, or with an error given up."""
        done: dict[str, Any] = {"reached": entry.number, "error": error}
        with self._engine.begin() as connection:
            if error:
                query = sa.select(t.hooks.c.lost).where(_one(fleet, hook)).with_for_update()
                lost = connection.execute(query).scalar_one()
                fresh = {
                    "id": entry.id, "event": entry.event, "error": error,
                    "time": entry.time.isoformat(timespec="milliseconds"),
                }  # fmt: skip
                done |= {"given_up": t.hooks.c.given_up + 1, "lost": [*lost, fresh][-MOST_LOST:]}
            else:
                done["delivered"] = t.hooks.c.delivered + 1
            _write(connection, fleet, hook, done)

    def passed(self, fleet: str, hook: str, number: int) -> None:
        """Up to that number there is nothing that it is to be told."""
        with self._engine.begin() as connection:
            _write(connection, fleet, hook, {"reached": number})

    def failed(self, fleet: str, hook: str, error: str) -> None:
        """An event is not settled, and will be told another time."""
        with self._engine.begin() as connection:
            _write(connection, fleet, hook, {"error": error})

    def standing(self, fleet: str, hook: str) -> Standing:
        """How it stands."""
        h = t.hooks.c
        query = sa.select(h.hook, h.delivered, h.given_up, h.error, h.lost)
        with self._engine.connect() as connection:
            row = connection.execute(query.where(_one(fleet, hook))).one_or_none()
            return Standing(hook) if row is None else Standing(*row)

    def waiting(self, fleet: str, hook: str, events: Sequence[str]) -> int:
        """How many events it has not been told yet."""
        h = t.history.c
        query = sa.select(sa.func.count()).where(h.fleet_id == fleet)
        query = query.where(h.number > self.reached(fleet, hook))
        if events:
            query = query.where(h.event.in_(events))
        with self._engine.connect() as connection:
            return int(connection.execute(query).scalar_one())


def enlist(connection: Connection, fleet: str, hooks: Collection[str]) -> None:
    """Make those the hooks of the fleet: history waits for them, and for no other.

    One that is new is to be told all that is kept.
    """
    named = t.hooks.c.fleet_id == fleet
    known = set(connection.scalars(sa.select(t.hooks.c.hook).where(named)))
    connection.execute(t.hooks.delete().where(named & t.hooks.c.hook.not_in(hooks)))
    for hook in hooks:
        if hook not in known:
            free = {"holder": "", "expires_at": 0.0}
            connection.execute(t.hooks.insert().values(**_fresh(fleet, hook), **free))


def _fresh(fleet: str, hook: str) -> dict[str, Any]:
    counts = {"reached": 0, "delivered": 0, "given_up": 0, "error": "", "lost": []}
    return {"fleet_id": fleet, "hook": hook, **counts}


def _one(fleet: str, hook: str) -> sa.ColumnElement[bool]:
    return (t.hooks.c.fleet_id == fleet) & (t.hooks.c.hook == hook)


def _write(connection: Connection, fleet: str, hook: str, values: Mapping[str, Any]) -> None:
    connection.execute(t.hooks.update().where(_one(fleet, hook)).values(**values))
