"""Drives one fleet: decides who may begin, who is stopped, and when it is over. Moves nothing.

Rules:
* It offers items in the state database; any process of the crew takes them (mover.py), this
  one like the others.
* Everything it knows is in the database before it acts on it, and it writes only while the
  fleet's lease is its own. Killed at any moment, another goes on from what is written.
* It never waits for one volume: what has ended, somebody has written down.
"""

from collections.abc import Callable
from datetime import datetime

from msgspec.structs import replace

from blockferry.errors import BlockferryError, BusyError
from blockferry_controller.engine.fleet_records import (
    FleetRecord,
    FleetWants,
    ItemRecord,
    ItemState,
)
from blockferry_controller.engine.lease import Holder
from blockferry_controller.engine.records import State
from blockferry_controller.engine.requests import Want
from blockferry_controller.engine.state import StateStore
from blockferry_controller.fleet.admission import Reason, Why
from blockferry_controller.fleet.budget import budget, share
from blockferry_controller.fleet.decide import Decision, Over, View, decide
from blockferry_controller.fleet.ferry import Ferry
from blockferry_controller.fleet.founding import order_of
from blockferry_controller.fleet.pool import PoolKeeper
from blockferry_controller.fleet.quotas import Quotas
from blockferry_controller.fleet.spec import Fleet


class Conductor:
    """Drives a fleet whose lease `holder` has. Not thread-safe.

    Args:
        store: The state database.
        ferry: Asks clouds for their quota, makes and undoes migrations.
        record: The fleet.
        fleet: The file that it was made of.
        holder: This process.
        now: The time, in UTC.
    """

    def __init__(
        self,
        store: StateStore,
        ferry: Ferry,
        record: FleetRecord,
        fleet: Fleet,
        *,
        holder: Holder,
        now: Callable[[], datetime],
    ) -> None:
        self._store, self._fleets, self._ferry = store, store.fleets, ferry
        self.holder, self._now = holder, now
        self._record, self._fleet, self._id = record, fleet, record.id
        self._since = now()
        self._items: dict[int, ItemRecord] = {}
        self._version = -1
        self._quotas = Quotas(store, ferry, record.id, fleet, now)
        self._share = -1
        self._pool = PoolKeeper(store, ferry, self._id, fleet.pool, now) if fleet.pool else None

    def begin(self) -> None:
        """Take the fleet up; a breaker is set again."""
        self._fleets.set_state(self._id, State.RUNNING)
        self._reload()
        for item in list(self._items.values()):
            if item.why == Why.BREAKER.value:
                self._change(item.position, ItemState.WAITING, why="", reason="")

    def step(self) -> bool:
        """Decide once; True when the fleet is over, and its state says how.

        Raises:
            BusyError: FLEET_LOST, another process drives it now; LEFTOVERS.
        """
        self._store.crew.offer_what_the_dead_held()
        wants = self._fleets.wants(self._id)
        self._reload()
        if wants.cancelled:
            return self._cancelled()
        waiting = [one for one in self._items.values() if one.state is ItemState.WAITING]
        self._quotas.read(waiting, len(self._running()))
        self._tend_pool()
        running = {item.migration_id: item.position for item in self._running()}
        uncounted = self._quotas.uncounted(running)
        pairs = self._quotas.pairs
        decision = decide(
            View(
                self._fleet, list(self._items.values()), wants, self._now(), self._since,
                self._quotas.left, frozenset(running[own] for own in uncounted),
                counted_lanes=self._pool.lanes_of(uncounted, pairs) if self._pool else 0,
                free_lanes=self._pool.free_lanes(running) if self._pool else 0,
                shut_lanes=self._pool.shut_lanes if self._pool else 0,
            )
        )  # fmt: skip
        if decision.over is not None and not self._running():
            self._explain(decision)
            left = self._finish_pool()
            if left is not None:
                self._end(decision.over, left)
            return left is not None
        if decision.stop is not None:
            self._stop(decision.stop)
        self._explain(decision)
        self._divide(wants, starting=len(decision.start))
        for position in decision.start:
            self._offer(position)
        return False

    def _offer(self, position: int) -> None:
        """Let a volume begin: its migration is known before anybody can take it."""
        item = self._items[position]
        own = item.migration_id or self._ferry.new_id()
        limit = max(self._share, 0)
        if not item.migration_id and not self._change(
            position, ItemState.WAITING, migration_id=own
        ):
            return
        if self._store.knows(own):
            # What it kept to when it ran last is over.
            self._store.requests.ask(own, Want.LIMIT, limit)
        else:
            spec = order_of(self._fleet, self._record.settings, item)
            transfer = replace(spec.transfer, limit_bytes_per_second=limit)
            self._ferry.create(replace(spec, transfer=transfer), own)
        self._change(
            position, ItemState.WAITING, state=ItemState.RUNNING, begun=True, why="", reason="",
            not_before=None, started_at=item.started_at or self._now(),
        )  # fmt: skip

    def _tend_pool(self) -> None:
        if self._pool is not None:
            self._pool.tend(sum(not item.state.final for item in self._items.values()))

    def _finish_pool(self) -> list[str] | None:
        """End all pairs; None while that goes on, else what is left all the same."""
        return [] if self._pool is None else self._pool.finish()

    def close(self) -> None:
        """Before the fleet is left to others: free pairs are not."""
        if self._pool is not None:
            self._pool.close()

    def _end(self, over: Over, left: list[str]) -> None:
        """Write down how the fleet ended, and which pairs `cleanup` has still to delete."""
        counts = self._fleets.get(self._id).counts
        failed = counts.get(ItemState.FAILED.value, 0)
        state, said = State.SUCCEEDED, []
        if over is Over.STOPPED:
            state = State.WAITING
            said = [next(item.reason for item in self._items.values() if _needs_a_person(item))]
        elif failed:
            state = State.FAILED
            said = [f"{failed} of {sum(counts.values())} volumes of fleet {self._id} failed"]
            said.append(
                f"`blockferry show {self._id}` tells why, `blockferry retry {self._id}` tries them "
                "again"
            )
        said += [*left, "`blockferry cleanup` deletes them"] if left else []
        self._fleets.set_state(self._id, state, "; ".join(said))

    def _cancelled(self) -> bool:
        """Once nothing runs, undo what has begun and not ended; the rest never begins."""
        if self._running():
            self._stop(Reason(Why.PAUSED, "the fleet is being cancelled"))
            return False
        left: list[str] = []
        for item in list(self._items.values()):
            if item.state.final:
                continue
            try:
                if item.begun and _is_open(self._store, item.migration_id):
                    self._ferry.cancel(item.migration_id)
            except BlockferryError as error:
                left.append(f"{item.migration_id}: {error.message}")
                continue
            self._change(
                item.position, ItemState.WAITING, state=ItemState.CANCELLED, why="", reason=""
            )
        pairs = self._finish_pool()
        if pairs is None:
            return False
        left += pairs
        if left:
            raise BusyError("LEFTOVERS", "not all could be removed: " + "; ".join(left))
        self._fleets.set_state(self._id, State.CANCELLED, "cancelled")
        return True

    # --- what is known --------------------------------------------------------------

    def _reload(self) -> None:
        """Read what has changed since, whoever changed it."""
        version = self._fleets.version(self._id)
        if version == self._version:
            return
        for item in self._fleets.items(self._id, since=self._version):
            self._items[item.position] = item
        self._version = version

    def _running(self) -> list[ItemRecord]:
        return [item for item in self._items.values() if item.state is ItemState.RUNNING]

    def _change(self, position: int, while_in: ItemState, **values: object) -> bool:
        if not self._fleets.change(self._id, self.holder, position, while_in, **values):
            return False
        self._items[position] = replace(self._items[position], **values)
        return True

    def _stop(self, reason: Reason) -> None:
        if any(not (item.holder and item.why) for item in self._running()):
            self._fleets.stop(self._id, self.holder, reason.why.value, reason.text)

    def _explain(self, decision: Decision) -> None:
        """Write down only what has changed: 10,000 that wait for one limit are written once."""
        fresh: dict[int, tuple[str, str]] = {}
        for position, reason in decision.reasons.items():
            item = self._items[position]
            if (item.why, item.reason) != (reason.why.value, reason.text):
                fresh[position] = (reason.why.value, reason.text)
                self._items[position] = replace(item, why=reason.why.value, reason=reason.text)
        self._fleets.explain(self._id, self.holder, fresh)

    # --- bandwidth ------------------------------------------------------------------

    def _divide(self, wants: FleetWants, *, starting: int) -> None:
        """Give each that runs, and will in a moment, its share of the bandwidth."""
        running = self._running()
        all_of_it = budget(self._fleet, wants.limit_bytes_per_second)
        each = share(all_of_it, len(running) + starting)
        if each == self._share:
            return
        self._share = each
        for item in running:
            self._store.requests.ask(item.migration_id, Want.LIMIT, each)


def _needs_a_person(item: ItemRecord) -> bool:
    return item.state is ItemState.WAITING and item.why in (Why.BREAKER.value, Why.GATE.value)


def _is_open(store: StateStore, migration_id: str) -> bool:
    known = store.knows(migration_id)
    return known and not State(store.get(migration_id).state).final
