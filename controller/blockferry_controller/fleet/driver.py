"""Drives a fleet: decides every second, begins and stops migrations, writes down what came of it.

Rules:
* What a volume's way is, is none of its business: it runs migrations, in a thread each,
  by the same service as `blockferry migrate`.
* Everything it knows is in the state database before it acts on it. Killed at any moment
  and run again, it finds what ran then claimed and under way, and goes on with that first.
* It never waits for one volume: a thread ends, and what came of it is judged here.
"""

import logging
import queue
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack, closing
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Final, Protocol

from blockferry.errors import BlockferryError, BusyError, CancelledError, FleetError
from blockferry_controller.clouds.port import Cloud
from blockferry_controller.engine.fleets import FleetRecord, FleetWants, ItemRecord, ItemState
from blockferry_controller.engine.lease import Holder, LeaseKeeper
from blockferry_controller.engine.records import MigrationRecord, State
from blockferry_controller.engine.requests import Want
from blockferry_controller.engine.state import StateStore
from blockferry_controller.events import Listener, Noted
from blockferry_controller.fleet.admission import Reason, Why
from blockferry_controller.fleet.budget import budget, share
from blockferry_controller.fleet.decide import Decision, Over, View, decide
from blockferry_controller.fleet.founding import fleet_in, order_of
from blockferry_controller.fleet.outcome import Outcome, judge
from blockferry_controller.fleet.spec import Fleet
from blockferry_controller.migration.context import INTERRUPTED
from blockferry_controller.spec import Spec

_log = logging.getLogger(__name__)
TICK_SECONDS: Final = 1.0
_QUOTA_SECONDS: Final = 30.0
_QUOTA_AGAIN_SECONDS: Final = 3.0
_COUNTED_AFTER: Final = timedelta(seconds=120)
"""An instance that was asked for so long before the quota was read, is in it."""


class Ferry(Protocol):
    """What moves one volume: migration.service.Migrations."""

    def new_id(self) -> str:
        """An id that no migration has had."""
        ...

    def create(self, spec: Spec, migration_id: str = "") -> MigrationRecord:
        """Remember a new migration."""
        ...

    def run(self, migration_id: str) -> MigrationRecord:
        """Run it to its end, from wherever it is."""
        ...

    def interrupt(self, migration_id: str = "") -> None:
        """Stop one that runs, or all."""
        ...

    def cancel(self, migration_id: str) -> MigrationRecord:
        """End it for good."""
        ...

    def cloud(self, name: str) -> AbstractContextManager[Cloud]:
        """The cloud of that name."""
        ...

    def held(self, *clouds: str) -> AbstractContextManager[None]:
        """Keep clouds and durable execution open."""
        ...


class Driver:
    """Drives one fleet, in the calling thread; `interrupt` may come from a signal handler.

    Args:
        store: The state database.
        ferry: Moves one volume.
        listener: Hears what happens.
        now: The time, in UTC.
        tick_seconds: Between two decisions.
    """

    def __init__(
        self,
        store: StateStore,
        ferry: Ferry,
        listener: Listener,
        *,
        now: Callable[[], datetime],
        tick_seconds: float = TICK_SECONDS,
    ) -> None:
        self._store, self._fleets, self._ferry = store, store.fleets, ferry
        self._listener = listener
        self._now = now
        self._tick = tick_seconds
        self._stopping = False
        self._lost = threading.Event()
        self._wake = threading.Event()
        self._ended: queue.SimpleQueue[tuple[int, BaseException | None]] = queue.SimpleQueue()
        self._stopped: dict[int, Reason] = {}
        self._items: dict[int, ItemRecord] = {}
        self._version = -1
        self._quota: dict[str, Mapping[str, int | None]] = {}
        self._quota_at: datetime | None = None
        self._quota_stale = False
        self._share = -1

    def interrupt(self) -> None:
        """Stop in order. Safe in a signal handler; idempotent."""
        self._stopping = True
        self._ferry.interrupt()

    def run(self, fleet_id: str) -> FleetRecord:
        """Drive the fleet until it is done, cannot go on, or is interrupted.

        Raises:
            FleetError: FLEET_FAILED, some volumes failed; FLEET_STOPPED, a person is needed.
            CancelledError: INTERRUPTED.
            BusyError: FLEET_BUSY, FLEET_LOST.
        """
        holder = Holder.of_this_process()
        record = self._fleets.get(fleet_id)
        fleet = fleet_in(record)
        self._fleets.acquire(fleet_id, holder)
        with ExitStack() as stack:
            stack.callback(self._fleets.release, fleet_id, holder)
            renew = LeaseKeeper(lambda: self._fleets.renew(fleet_id, holder), self._lost.set)
            stack.enter_context(closing(renew))
            self._fleets.set_state(fleet_id, State.RUNNING)
            self._recover(record)
            stack.enter_context(self._ferry.held(fleet.source, fleet.destination))
            # Threads end before what they work with is closed.
            pool = stack.enter_context(
                ThreadPoolExecutor(fleet.limits.concurrency, thread_name_prefix="fleet")
            )
            try:
                over = self._loop(record, fleet, pool)
            except BaseException:
                # The threads are waited for: that must not be as long as their volumes take.
                self._stop_all(Reason(Why.PAUSED, "the batch ended of an error; run it again"))
                raise
            return self._end(record, over)

    def _loop(self, record: FleetRecord, fleet: Fleet, pool: ThreadPoolExecutor) -> Over | None:
        """Until it is over; None: interrupted, lost or cancelled, and nothing runs any more."""
        since = self._now()
        while True:
            self._collect(record.id, fleet)
            wants = self._fleets.wants(record.id)
            self._reload(record.id)
            if self._stopping or self._lost.is_set() or wants.cancelled:
                if not self._stop_all(Reason(Why.PAUSED, "the batch was stopped; run it again")):
                    return None
            else:
                over = self._step(record, fleet, pool, wants, since)
                if over is not None:
                    return over
            self._wake.wait(self._tick)
            self._wake.clear()

    def _step(
        self,
        record: FleetRecord,
        fleet: Fleet,
        pool: ThreadPoolExecutor,
        wants: FleetWants,
        since: datetime,
    ) -> Over | None:
        self._read_quota(fleet)
        decision = decide(
            View(
                fleet, list(self._items.values()), wants, self._now(), since, self._quota,
                self._uncounted(),
            )
        )  # fmt: skip
        if decision.over is not None and not self._running():
            self._explain(record.id, decision)
            return decision.over
        if decision.stop is not None:
            self._stop_all(decision.stop)
        self._explain(record.id, decision)
        self._divide(fleet, wants, starting=len(decision.start))
        for position in decision.start:
            self._begin(record, fleet, pool, position)
        return None

    # --- beginning and ending -------------------------------------------------------

    def _begin(
        self, record: FleetRecord, fleet: Fleet, pool: ThreadPoolExecutor, position: int
    ) -> None:
        item = self._items[position]
        migration_id = item.migration_id or self._ferry.new_id()
        spec = order_of(fleet, record.settings, item)
        limit = max(self._share, 0)
        spec = replace(spec, transfer=replace(spec.transfer, limit_bytes_per_second=limit))
        self._change(
            record.id, position, state=ItemState.RUNNING, migration_id=migration_id, begun=True,
            why="", reason="", not_before=None, started_at=item.started_at or self._now(),
        )  # fmt: skip
        if _is_known(self._store, migration_id):
            # What it kept to when it ran last is over.
            self._store.requests.ask(migration_id, Want.LIMIT, limit)
        else:
            self._ferry.create(spec, migration_id)
        again = "goes on" if item.begun else "begins"
        self._note(record.id, f"{item.name or item.volume_id} {again}: migration {migration_id}")
        pool.submit(self._move, position, migration_id)

    def _move(self, position: int, migration_id: str) -> None:
        """In a thread of its own; what it raises is told to the loop."""
        error: BaseException | None = None
        try:
            self._ferry.run(migration_id)
        except BaseException as caught:  # noqa: BLE001 - judged by the loop
            error = caught
        self._ended.put((position, error))
        self._wake.set()

    def _collect(self, fleet_id: str, fleet: Fleet) -> None:
        """Judge what has ended since."""
        while True:
            try:
                position, error = self._ended.get_nowait()
            except queue.Empty:
                return
            item = self._items[position]
            found = judge(
                item, error, most_attempts=fleet.attempts,
                stopped=self._stopped.pop(position, None), now=self._now(),
            )  # fmt: skip
            self._record(fleet_id, item, found)
            self._quota_stale = True

    def _record(self, fleet_id: str, item: ItemRecord, found: Outcome) -> None:
        self._change(
            fleet_id, item.position, state=found.state, why=found.why, reason=found.reason,
            attempts=found.attempts, not_before=found.not_before,
            ended_at=self._now() if found.state.final else None,
        )  # fmt: skip
        told = f": {found.reason}" if found.reason else ""
        level = "warning" if found.state is ItemState.FAILED else "info"
        said = f"{item.name or item.volume_id} {found.state.value.lower()}{told}"
        self._note(fleet_id, said, level)

    def _stop_all(self, reason: Reason) -> bool:
        """Ask all that runs to stop without loss; False when nothing runs."""
        running = self._running()
        for item in running:
            if item.position not in self._stopped:
                self._stopped[item.position] = reason
            # Asked again each time: one that was only just begun may not have heard it.
            self._ferry.interrupt(item.migration_id)
        return bool(running)

    def _end(self, record: FleetRecord, over: Over | None) -> FleetRecord:
        if over is None:
            return self._cut_short(record)
        counts = self._fleets.get(record.id).counts
        failed = counts.get(ItemState.FAILED.value, 0)
        if over is Over.STOPPED:
            why = next(item.reason for item in self._items.values() if _needs_a_person(item))
            self._fleets.set_state(record.id, State.WAITING, why)
            raise FleetError("FLEET_STOPPED", f"fleet {record.id} stopped: {why}", fleet=record.id)
        if failed:
            said = (
                f"{failed} of {sum(counts.values())} volumes of fleet {record.id} failed; "
                f"`blockferry show {record.id}` tells why, `blockferry retry {record.id}` tries "
                "them again"
            )
            self._fleets.set_state(record.id, State.FAILED, said)
            raise FleetError("FLEET_FAILED", said, fleet=record.id, failed=failed)
        self._fleets.set_state(record.id, State.SUCCEEDED)
        return self._fleets.get(record.id)

    def _cut_short(self, record: FleetRecord) -> FleetRecord:
        if self._lost.is_set():
            said = f"another process has taken fleet {record.id} over"
            raise BusyError("FLEET_LOST", said, fleet=record.id)
        if self._stopping:
            self._fleets.set_state(record.id, State.INTERRUPTED)
            said = f"interrupted; `blockferry batch` of fleet {record.id} goes on from here"
            raise CancelledError(INTERRUPTED, said, fleet=record.id)
        return self._cancelled(record)

    def _cancelled(self, record: FleetRecord) -> FleetRecord:
        """Undo what has begun and not ended; the rest never begins."""
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
            self._change(record.id, item.position, state=ItemState.CANCELLED, why="", reason="")
        if left:
            raise BusyError("LEFTOVERS", "not all could be removed: " + "; ".join(left))
        self._fleets.set_state(record.id, State.CANCELLED, "cancelled")
        return self._fleets.get(record.id)

    # --- what is known --------------------------------------------------------------

    def _recover(self, record: FleetRecord) -> None:
        """What a driver that died has left as running, goes on; a breaker is set again."""
        for item in self._fleets.items(record.id):
            self._items[item.position] = item
            if item.state is ItemState.RUNNING:
                self._change(
                    record.id, item.position, state=ItemState.WAITING, why=Why.RETRY.value,
                    reason="its driver died; it goes on",
                )  # fmt: skip
            elif item.why == Why.BREAKER.value:
                self._change(record.id, item.position, why="", reason="")
        self._version = record.version

    def _reload(self, fleet_id: str) -> None:
        """Read the items again when somebody else has changed one."""
        version = self._fleets.version(fleet_id)
        if version != self._version:
            self._items = {item.position: item for item in self._fleets.items(fleet_id)}
            self._version = version

    def _running(self) -> list[ItemRecord]:
        return [item for item in self._items.values() if item.state is ItemState.RUNNING]

    def _change(self, fleet_id: str, position: int, **values: object) -> None:
        self._fleets.change(fleet_id, position, **values)
        self._items[position] = replace(self._items[position], **values)  # type: ignore[arg-type]

    def _explain(self, fleet_id: str, decision: Decision) -> None:
        """Write down only what has changed: 10,000 that wait for one limit are written once."""
        fresh: dict[int, tuple[str, str]] = {}
        for position, reason in decision.reasons.items():
            item = self._items[position]
            if (item.why, item.reason) != (reason.why.value, reason.text):
                fresh[position] = (reason.why.value, reason.text)
                self._items[position] = replace(item, why=reason.why.value, reason=reason.text)
        self._fleets.explain(fleet_id, fresh)

    # --- quotas and bandwidth -------------------------------------------------------

    def _read_quota(self, fleet: Fleet) -> None:
        """One call a cloud serves all that wait; none where nothing does."""
        now = self._now()
        waits = any(item.state is ItemState.WAITING for item in self._items.values())
        age = (now - self._quota_at).total_seconds() if self._quota_at else None
        soon = _QUOTA_AGAIN_SECONDS if self._quota_stale else _QUOTA_SECONDS
        if not waits or (age is not None and age < soon):
            return
        self._quota_at, self._quota_stale = now, False
        for name in (fleet.source, fleet.destination):
            try:
                with self._ferry.cloud(name) as cloud:
                    self._quota[name] = cloud.quota().left
            except BlockferryError as error:
                # Each migration asks for itself before it makes anything.
                _log.info("the quota of %s is not known now: %s", name, error)
                self._quota.pop(name, None)

    def _uncounted(self) -> frozenset[int]:
        if self._quota_at is None:
            return frozenset()
        since = self._quota_at - _COUNTED_AFTER
        return frozenset(
            item.position
            for item in self._running()
            if item.started_at is not None and item.started_at >= since
        )

    def _divide(self, fleet: Fleet, wants: FleetWants, *, starting: int) -> None:
        """Give each that runs, and will in a moment, its share of the bandwidth."""
        running = self._running()
        each = share(budget(fleet, wants.limit_bytes_per_second), len(running) + starting)
        if each == self._share:
            return
        self._share = each
        for item in running:
            self._store.requests.ask(item.migration_id, Want.LIMIT, each)

    def _note(self, fleet_id: str, message: str, level: str = "info") -> None:
        self._listener(Noted(fleet_id, level, message))


def _needs_a_person(item: ItemRecord) -> bool:
    return item.state is ItemState.WAITING and item.why in (Why.BREAKER.value, Why.GATE.value)


def _is_known(store: StateStore, migration_id: str) -> bool:
    try:
        return store.get(migration_id).id == migration_id
    except BlockferryError:
        return False


def _is_open(store: StateStore, migration_id: str) -> bool:
    known = _is_known(store, migration_id)
    return known and not State(store.get(migration_id).state).final
