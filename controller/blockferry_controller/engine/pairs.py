"""Pairs of instances that serve one volume of a fleet after another, and who has each.

    TAKEN ──give_back──► FREE ──take──► TAKEN        ENDING ──ended──► ENDED
      └──────────end──────┴─────────────end───────────►┘

Rules:
* A row is written before anything of its pair is made in a cloud, and all of that carries
  the pair's id: so whoever finds either finds both.
* A migration has its pair from TAKEN until it gives it back, over its controllers' deaths:
  whoever resumes it has the same one. Each time the pair's epoch grows: agents refuse whoever
  had it before, the same migration's earlier controllers included.
* Every change is one UPDATE on the condition that the row still is what it was taken for. A
  controller that was cut off takes, gives back and ends nothing that others have gone on with.
* ENDING is for anybody to go on with: what carries the pair's id is deleted, twice if need be.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from enum import Enum
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.engine import Connection, Engine, RowMapping

from blockferry_controller.engine import tables as t

_PAIRS: Final = t.pairs.c


LIFETIME: Final = timedelta(days=7)
"""An older pair serves nobody any more: its roots end after 30 days, and a copy may last."""


class PairState(str, Enum):
    """Where a pair is; see the module."""

    TAKEN = "TAKEN"
    FREE = "FREE"
    ENDING = "ENDING"
    ENDED = "ENDED"


@dataclass(frozen=True, slots=True)
class PairRecord:
    """One pair.

    Attributes:
        id: Of the form of a migration's id; in tags and certificates in its place.
        fleet_id: Whose volumes it serves.
        source, destination: Clouds, as in clouds.yaml.
        fit: What it was made of; only who wants the same may take it.
        migration_id: Who has it; empty while nobody does.
        taken_in: That migration's epoch when it took the pair.
        epoch: Of the identities that its agents have.
        served: Migrations that have given it back.
        facts: What whoever takes it need not find out again.
        changed_at: When it came to be in its state, UTC.
    """

    id: str
    fleet_id: str
    source: str
    destination: str
    fit: str
    state: PairState
    migration_id: str
    taken_in: int
    epoch: int
    served: int
    facts: Mapping[str, Any]
    made_at: datetime
    changed_at: datetime


@dataclass(frozen=True, slots=True)
class Order:
    """Who wants a pair, and of what kind.

    Attributes:
        epoch: The migration's, of this controller.
        most: Of the fleet at a time, apart from those that end.
    """

    migration_id: str
    epoch: int
    fleet_id: str
    source: str
    destination: str
    fit: str
    most: int


class Pairs:
    """All pairs of one state database. Thread-safe."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def find(self, pair_id: str) -> PairRecord | None:
        """The pair of that id, ended ones included."""
        return next(iter(self._read(_PAIRS.id == pair_id)), None)

    def held_by(self, migration_id: str) -> PairRecord | None:
        """The pair that a migration has."""
        held = (_PAIRS.migration_id == migration_id) & (_PAIRS.state == PairState.TAKEN.value)
        return next(iter(self._read(held)), None)

    def of(self, fleet_id: str) -> list[PairRecord]:
        """Those of a fleet that have not ended, oldest first."""
        there = _PAIRS.state != PairState.ENDED.value
        return self._read((_PAIRS.fleet_id == fleet_id) & there)

    def all(self) -> list[PairRecord]:
        """All there ever were, oldest first."""
        return self._read(sa.true())

    def take(
        self, order: Order, new_id: Callable[[], str], is_ours: Callable[[str], bool]
    ) -> PairRecord | None:
        """The pair that the migration has, else a free one that fits, else a new one.

        Args:
            order: Who wants it.
            new_id: An id that no pair has had.
            is_ours: Whether this process can speak to the agents of a free pair.

        Returns:
            None when the migration has another controller by now. One that has served
            nobody yet may still have to be booted.
        """
        held = self.held_by(order.migration_id)
        if held is not None:
            return self._take(held, order)
        since = datetime.now(timezone.utc) - LIFETIME
        free = [
            one
            for one in self.of(order.fleet_id)
            if one.state is PairState.FREE and one.made_at > since
        ]
        # The one that was used last: the others may come to the end of their time.
        for one in sorted(free, key=lambda pair: pair.changed_at, reverse=True):
            if one.fit == order.fit and is_ours(one.id):
                taken = self._take(one, order)
                if taken is not None:
                    return taken
        return self._make(order, new_id())

    def _take(self, pair: PairRecord, order: Order) -> PairRecord | None:
        return self._change(
            pair,
            _drives(order),
            state=PairState.TAKEN,
            migration_id=order.migration_id,
            taken_in=order.epoch,
            epoch=pair.epoch + 1,
        )

    def _make(self, order: Order, pair_id: str) -> PairRecord | None:
        """A row for a new pair; where there are as many as may be, a free one makes room."""
        there = [one for one in self.of(order.fleet_id) if one.state is not PairState.ENDING]
        free = [one for one in there if one.state is PairState.FREE]
        for one in free[: max(0, len(there) + 1 - order.most)]:
            self.end(one)
        now = datetime.now(timezone.utc)
        values = {
            "id": pair_id, "fleet_id": order.fleet_id, "source": order.source,
            "destination": order.destination, "fit": order.fit, "state": PairState.TAKEN.value,
            "migration_id": order.migration_id, "taken_in": order.epoch, "epoch": 1, "served": 0,
            "facts": {}, "made_at": now, "changed_at": now,
        }  # fmt: skip
        with self._engine.begin() as connection:
            if connection.execute(sa.select(_drives(order))).scalar():
                connection.execute(t.pairs.insert().values(**values))
        return self.find(pair_id)

    def give_back(self, pair: PairRecord, facts: Mapping[str, Any]) -> bool:
        """Let another migration have it; False, and nothing, when it is `pair`'s no more.

        Args:
            pair: As it was taken; its agents have been vacated.
            facts: What the next one need not find out again.
        """
        return None is not self._change(
            pair,
            state=PairState.FREE,
            migration_id="",
            served=pair.served + 1,
            facts=dict(facts),
        )

    def put_back(self, pair: PairRecord) -> bool:
        """As `give_back`, of one whose agents were never spoken to."""
        return self._change(pair, state=PairState.FREE, migration_id="") is not None

    def end(self, pair: PairRecord) -> PairRecord | None:
        """Nobody is to have it any more; None when somebody else has it by now."""
        return self._change(pair, state=PairState.ENDING, migration_id="")

    def ended(self, pair: PairRecord) -> None:
        """Nothing of it is left. Idempotent."""
        ending = (_PAIRS.id == pair.id) & (_PAIRS.state == PairState.ENDING.value)
        with self._engine.begin() as connection:
            connection.execute(
                t.pairs.update().where(ending).values(state=PairState.ENDED.value, facts={})
            )

    def _change(
        self, pair: PairRecord, condition: sa.ColumnElement[bool] | None = None, **values: object
    ) -> PairRecord | None:
        """Change it if it still is as `pair` says, epoch and all."""
        same = (
            (_PAIRS.id == pair.id)
            & (_PAIRS.state == pair.state.value)
            & (_PAIRS.migration_id == pair.migration_id)
            & (_PAIRS.epoch == pair.epoch)
        )
        values["changed_at"] = datetime.now(timezone.utc)
        with self._engine.begin() as connection:
            where = same if condition is None else same & condition
            if connection.execute(t.pairs.update().where(where).values(**values)).rowcount != 1:
                return None
            return _one(connection, pair.id)

    def _read(self, where: sa.ColumnElement[bool]) -> list[PairRecord]:
        query = sa.select(t.pairs).where(where).order_by(_PAIRS.made_at, _PAIRS.id)
        with self._engine.connect() as connection:
            return [_record(row) for row in connection.execute(query).mappings()]


def _drives(order: Order) -> sa.ColumnElement[bool]:
    """Whether the migration's newest controller is the one that orders."""
    mine = (t.migrations.c.id == order.migration_id) & (t.migrations.c.epoch == order.epoch)
    return sa.exists().where(mine)


def _one(connection: Connection, pair_id: str) -> PairRecord:
    rows: Sequence[RowMapping] = (
        connection.execute(sa.select(t.pairs).where(_PAIRS.id == pair_id)).mappings().all()
    )
    return _record(rows[0])


def _record(row: RowMapping) -> PairRecord:
    values = {**row, "state": PairState(row["state"])}
    for name in ("made_at", "changed_at"):
        if values[name].tzinfo is None:  # SQLite keeps none
            values[name] = values[name].replace(tzinfo=timezone.utc)
    return PairRecord(**values)
