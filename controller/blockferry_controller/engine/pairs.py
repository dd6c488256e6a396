"""Pairs of instances that volumes of a fleet share, and who is in each.

A pair has lanes: an agent at each end, for one migration at a time, with an id, keys and an
epoch of their own. So for trust and fencing a lane is what a pair of instances is that serves
one migration. What lanes share are the instances, their ports and groups.

    lane    free ──take──► taken ──give_back, leave──► free
    pair    open ──close, end──► closed, and once nobody is in ──ended──► gone

Rules:
* A row is written before anything of its pair is made in a cloud, and all of that carries
  the pair's id: so whoever finds either finds both. The keys are there before the row.
* A migration has its lane until it gives it back or leaves, over its controllers' deaths:
  whoever resumes it has the same one. Each time the lane's epoch grows: its agents refuse
  whoever had it before, the same migration's earlier controllers included.
* A pair in which one had trouble takes nobody more. Those that are in go on to their end;
  the last one out deletes the instances, and where it dies over that, anybody may.
* One at a time makes or replaces the instances; the others wait for it.
* An instance that is there is deleted when all who are in find it of no use: what one lane
  cannot do any more, others still may.
* Every change is made in a transaction that is alone among those of its fleet's pairs, if the
  row still is what it was taken for. A controller that was cut off takes, gives back and ends
  nothing that others have gone on with.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from datetime import datetime, timedelta, timezone
from typing import Any, Final, Protocol

import sqlalchemy as sa
from msgspec import Struct
from msgspec.structs import replace
from sqlalchemy.engine import Connection, Engine

from blockferry.errors import BusyError
from blockferry_controller.engine import tables as t
from blockferry_controller.engine.locks import patient
from blockferry_controller.engine.pair_records import Held, LaneRecord, PairRecord, PairState

_PAIRS: Final = t.pairs.c
_LANES: Final = t.lanes.c
_LOCK: Final = 0x70616972  # any number that nobody else uses: "pair"

LIFETIME: Final = timedelta(days=7)
"""An older pair serves nobody any more: its roots end after 30 days, and a copy may last."""
PAIRS_TAKEN: Final = "PAIRS_TAKEN"


class Order(Struct, frozen=True):
    """Who wants a lane, and of what kind of pair.

    Attributes:
        epoch: The migration's, of this controller.
        most: Pairs of the fleet at a time, apart from those that are only being deleted.
        lanes: Of a pair that is made for it.
    """

    migration_id: str
    epoch: int
    fleet_id: str
    source: str
    destination: str
    fit: str
    most: int
    lanes: int = 1


class Keys(Protocol):
    """Who can speak to the agents of a lane is who has its keys."""

    def have(self, lane_id: str) -> bool:
        """Whether they are here."""
        ...

    def make(self, lane_id: str) -> None:
        """Make them, of a lane that is new."""
        ...


class Pairs:
    """All pairs of one state database. Thread-safe."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def find(self, pair_id: str) -> PairRecord | None:
        """The pair of that id, ended ones included."""
        return next(iter(self._read(_PAIRS.id == pair_id)), None)

    def held_by(self, migration_id: str) -> Held | None:
        """The lane that a migration has."""
        own = sa.select(_LANES.pair_id).where(_LANES.migration_id == migration_id)
        return _held_by(self._read(_PAIRS.id.in_(own)), migration_id)

    def of(self, fleet_id: str) -> list[PairRecord]:
        """Those of a fleet that have not ended, oldest first."""
        return self._read(_of(fleet_id))

    def all(self) -> list[PairRecord]:
        """All there ever were, oldest first."""
        return self._read(sa.true())

    def take(self, order: Order, new_id: Callable[[], str], keys: Keys) -> Held | None:
        """The lane that the migration has, else a free one that fits, else one of a new pair.

        Args:
            order: Who wants it.
            new_id: An id that no pair has had.
            keys: Of lanes.

        Returns:
            None when the migration has another controller by now.

        Raises:
            BusyError: PAIRS_TAKEN, there are as many pairs as may be, without room.
        """
        with self._alone(order.fleet_id) as connection:
            if not connection.execute(sa.select(_drives(order))).scalar():
                return None
            pairs = _select(connection, _of(order.fleet_id))
            held = _held_by(pairs, order.migration_id) or _free(pairs, order, keys)
            if held is None:
                held = Held(_make(connection, pairs, order, new_id(), keys), 0)
            return _put(
                connection, held,
                migration_id=order.migration_id, taken_in=order.epoch, epoch=held.epoch + 1,
            )  # fmt: skip

    def give_back(self, held: Held, facts: Mapping[str, Any]) -> PairRecord | None:
        """Let another migration have the lane; None, and nothing, when it is `held` no more.

        Args:
            held: As it was taken; its agents have been vacated.
            facts: What the next one need not find out again.
        """
        return self._let_go(held, facts, served=held.lane.served + 1)

    def leave(self, held: Held) -> PairRecord | None:
        """As `give_back`, of a lane whose agents were never spoken to, or of a closed pair."""
        return self._let_go(held, {}, served=held.lane.served)

    def close(self, held: Held) -> PairRecord | None:
        """Let nobody more in: they are not to have the same trouble; None as of `give_back`."""
        with self._ours(held) as (connection, pair):
            if pair is None:
                return None
            _change(connection, pair.id, closed=True)
            return _one(connection, pair.id)

    def remember(self, held: Held, **facts: object) -> None:
        """Let the pair's other guests know."""
        with self._ours(held) as (connection, pair):
            if pair is not None:
                _change(connection, pair.id, facts={**pair.facts, **facts})

    def begin_boot(self, held: Held, *, over: str = "") -> str:
        """Have the pair's instances to oneself, to look for them, make or replace them.

        Args:
            held: Of who asks.
            over: A migration that is known to be driven by nobody: its turn is over.

        Returns:
            Empty when it may be done, until `end_boot`; else who is at it. The own id
            when the lane is its own no more.
        """
        own = held.lane.migration_id
        with self._ours(held) as (connection, pair):
            if pair is None:
                return own
            if pair.booting not in ("", own, over):
                return pair.booting
            _change(connection, pair.id, booting=own)
            return ""

    def end_boot(self, held: Held) -> None:
        """The next may. Idempotent."""
        with self._ours(held) as (connection, pair):
            if pair is not None and pair.booting == held.lane.migration_id:
                _change(connection, pair.id, booting="")

    def condemn(self, held: Held, server_id: str) -> bool:
        """Find an instance of no use; whether all who are in do so by now."""
        with self._ours(held) as (connection, pair):
            if pair is None:
                return False
            _change_lane(connection, Held(pair, held.number), condemned=server_id)
            others = Held(pair, held.number).others
            return all(lane.condemned == server_id for lane in others)

    def end(self, pair: PairRecord) -> PairRecord | None:
        """Nobody is to have it any more; None when a lane has changed hands since."""
        with self._alone(pair.fleet_id) as connection:
            now = _one(connection, pair.id)
            if _hands(now) != _hands(pair) or now.ended:
                return None
            for lane in now.guests:
                _change_lane(connection, Held(now, lane.number), migration_id="")
            _change(connection, pair.id, closed=True)
            return _one(connection, pair.id)

    def ended(self, pair: PairRecord) -> None:
        """Nothing of it is left. Idempotent."""
        with self._alone(pair.fleet_id) as connection:
            if _one(connection, pair.id).state is PairState.ENDING:
                _change(connection, pair.id, ended=True, facts={})

    def _let_go(self, held: Held, facts: Mapping[str, Any], *, served: int) -> PairRecord | None:
        with self._ours(held) as (connection, pair):
            if pair is None:
                return None
            _change_lane(
                connection, Held(pair, held.number),
                migration_id="", condemned="", served=served, changed_at=_now(),
            )  # fmt: skip
            booting = "" if pair.booting == held.lane.migration_id else pair.booting
            _change(connection, pair.id, booting=booting, facts={**pair.facts, **facts})
            return _one(connection, pair.id)

    @contextmanager
    def _ours(self, held: Held) -> Iterator[tuple[Connection, PairRecord | None]]:
        """Alone with the pair as it is now; None when the lane has changed hands."""
        with self._alone(held.pair.fleet_id) as connection:
            pair = _one(connection, held.pair.id)
            same = _hands(pair)[held.number] == _hands(held.pair)[held.number]
            yield connection, pair if same else None

    @contextmanager
    def _alone(self, fleet_id: str) -> Iterator[Connection]:
        """A transaction while which nobody else changes pairs of the fleet."""
        with ExitStack() as stack:
            yield self._lock(fleet_id, stack)

    @patient
    def _lock(self, fleet_id: str, stack: ExitStack) -> Connection:
        """Begin that transaction; it ends with `stack`."""
        with ExitStack() as own:
            connection = own.enter_context(self._engine.begin())
            if self._engine.dialect.name == "sqlite":
                connection.exec_driver_sql("BEGIN IMMEDIATE")
            else:
                lock = sa.func.pg_advisory_xact_lock(_LOCK, sa.func.hashtext(fleet_id))
                connection.execute(sa.select(lock))
            stack.enter_context(own.pop_all())
            return connection

    def _read(self, where: sa.ColumnElement[bool]) -> list[PairRecord]:
        with self._engine.connect() as connection:
            return _select(connection, where)


def _of(fleet_id: str) -> sa.ColumnElement[bool]:
    return (_PAIRS.fleet_id == fleet_id) & ~_PAIRS.ended


def _held_by(pairs: Sequence[PairRecord], migration_id: str) -> Held | None:
    found = (
        Held(pair, lane.number)
        for pair in pairs
        for lane in pair.guests
        if lane.migration_id == migration_id
    )
    return next(found, None)


def _free(pairs: Sequence[PairRecord], order: Order, keys: Keys) -> Held | None:
    """The lane to be taken of pairs that are there: of the fullest that has room.

    So the others come to have nobody, and end. Among the equally full it is the one that was
    used last: the others may come to the end of their time. Of its lanes it is the one that was
    used longest ago, so that none is left until its certificates have ended.
    """
    since = _now() - LIFETIME
    fit = [one for one in pairs if one.room and one.fit == order.fit and one.made_at > since]
    for pair in sorted(fit, key=lambda one: (len(one.guests), one.changed_at), reverse=True):
        unused = (lane for lane in pair.lanes if not lane.migration_id)
        free = min(unused, key=lambda lane: (lane.changed_at, lane.number)).number
        if keys.have(pair.lane_id(free)):
            return Held(pair, free)
    return None


def _make(
    connection: Connection, pairs: Sequence[PairRecord], order: Order, pair_id: str, keys: Keys
) -> PairRecord:
    """A new pair, its lanes free; where there are as many as may be, a free one makes room."""
    there = [one for one in pairs if one.state is not PairState.ENDING]
    free = [one for one in there if one.state is PairState.FREE]
    too_many = max(0, len(there) + 1 - order.most)
    if too_many > len(free):
        raise BusyError(
            PAIRS_TAKEN,
            f"fleet {order.fleet_id} has {len(there)} pairs of instances, as pool.max says, and "
            "no lane of them is free for this volume here; it waits for one",
            fleet=order.fleet_id,
        )
    for one in free[:too_many]:
        _change(connection, one.id, closed=True)
    now = _now()
    lane = LaneRecord(0, "", 0, 0, 0, "", now)
    lanes = tuple(replace(lane, number=number) for number in range(order.lanes))
    pair = PairRecord(
        pair_id, order.fleet_id, order.source, order.destination, order.fit,
        closed=False, ended=False, booting="", facts={}, made_at=now, lanes=lanes,
    )  # fmt: skip
    for own in lanes:
        keys.make(pair.lane_id(own.number))
    names = (column.name for column in t.pairs.columns)
    connection.execute(t.pairs.insert().values({name: getattr(pair, name) for name in names}))
    for own in lanes:
        columns = (column.name for column in t.lanes.columns if column.name != "pair_id")
        row = {name: getattr(own, name) for name in columns}
        connection.execute(t.lanes.insert().values(pair_id=pair_id, **row))
    return pair


def _put(connection: Connection, held: Held, **values: object) -> Held:
    _change_lane(connection, held, condemned="", changed_at=_now(), **values)
    return Held(_one(connection, held.pair.id), held.number)


def _change(connection: Connection, pair_id: str, **values: object) -> None:
    connection.execute(t.pairs.update().where(_PAIRS.id == pair_id).values(**values))


def _change_lane(connection: Connection, held: Held, **values: object) -> None:
    own = (_LANES.pair_id == held.pair.id) & (_LANES.number == held.number)
    connection.execute(t.lanes.update().where(own).values(**values))


def _hands(pair: PairRecord) -> list[tuple[str, int]]:
    """In whose hands its lanes are."""
    return [(lane.migration_id, lane.epoch) for lane in pair.lanes]


def _drives(order: Order) -> sa.ColumnElement[bool]:
    """Whether the migration's newest controller is the one that orders."""
    mine = (t.migrations.c.id == order.migration_id) & (t.migrations.c.epoch == order.epoch)
    return sa.exists().where(mine)


def _one(connection: Connection, pair_id: str) -> PairRecord:
    return _select(connection, _PAIRS.id == pair_id)[0]


def _select(connection: Connection, where: sa.ColumnElement[bool]) -> list[PairRecord]:
    pairs = sa.select(t.pairs).where(where).order_by(_PAIRS.made_at, _PAIRS.id)
    known = {row["id"]: dict(row) for row in connection.execute(pairs).mappings()}
    lanes: dict[str, list[LaneRecord]] = {own: [] for own in known}
    if known:
        own = sa.select(_PAIRS.id).where(where)
        query = sa.select(t.lanes).where(_LANES.pair_id.in_(own)).order_by(_LANES.number)
        for row in connection.execute(query).mappings():
            values = {**row, "changed_at": _utc(row["changed_at"])}
            # A pair that was made between the two questions is not looked at.
            lanes.setdefault(values.pop("pair_id"), []).append(LaneRecord(**values))
    return [
        PairRecord(**{**row, "made_at": _utc(row["made_at"]), "lanes": tuple(lanes[own])})
        for own, row in known.items()
    ]


def _utc(moment: datetime) -> datetime:
    """SQLite keeps no time zone."""
    return moment.replace(tzinfo=timezone.utc) if moment.tzinfo is None else moment


def _now() -> datetime:
    return datetime.now(timezone.utc)
