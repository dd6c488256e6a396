"""A process that works for fleets: it moves what is offered, and drives what nobody drives.

Rules:
* All such processes are equal, `blockferry batch` among them: it works until its one fleet
  is over, `blockferry worker` until it is interrupted.
* Cut off from the state database for as long as a lease lasts, it stops all it moves; the
  others have gone on with it by then. It begins anew when the database is back.
"""

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from blockferry.errors import BlockferryError, BusyError, CancelledError, FleetError
from blockferry_controller.engine.away import AWAY, reason_of
from blockferry_controller.engine.fleet_records import FleetRecord
from blockferry_controller.engine.lease import Holder, LeaseKeeper
from blockferry_controller.engine.records import State
from blockferry_controller.engine.state import StateStore
from blockferry_controller.events import Listener, Noted
from blockferry_controller.fleet.admission import Reason, Why
from blockferry_controller.fleet.conductor import Conductor
from blockferry_controller.fleet.ferry import Ferry
from blockferry_controller.fleet.founding import fleet_in
from blockferry_controller.fleet.hooks.courier import delivering
from blockferry_controller.fleet.mover import Mover
from blockferry_controller.fleet.spec import Fleet
from blockferry_controller.migration.context import INTERRUPTED

_log = logging.getLogger(__name__)
TICK_SECONDS: Final = 1.0
ROOM: Final = 16
"""Volumes at a time, of a worker that is not told."""
_AGAIN_SECONDS: Final = 30.0
"""A fleet that could not be worked for is tried again after."""
_CUT_OFF: Final = Reason(Why.RETRY, "the process was cut off from the state database")
_STOPPED: Final = Reason(Why.PAUSED, "the batch was stopped; run it again")


@dataclass
class _Engaged:
    """A fleet that this process works for; its clouds are open."""

    record: FleetRecord
    fleet: Fleet
    stack: ExitStack
    conductor: Conductor | None = None


class Worker:
    """Works for fleets, in the calling thread; `interrupt` may come from a signal handler.

    Args:
        store: The state database.
        ferry: Moves one volume.
        listener: Hears what happens.
        now: The time, in UTC.
        tick_seconds: Between two looks at the state.
        room: Volumes at a time; None: as many as the one fleet says, or ROOM.
    """

    def __init__(
        self,
        store: StateStore,
        ferry: Ferry,
        listener: Listener,
        *,
        now: Callable[[], datetime],
        tick_seconds: float = TICK_SECONDS,
        room: int | None = None,
    ) -> None:
        self._store, self._fleets, self._crew = store, store.fleets, store.crew
        self._ferry, self._listener, self._now = ferry, listener, now
        self._tick, self._room = tick_seconds, room
        self._stopping = False
        self._wake = threading.Event()
        self._engaged: dict[str, _Engaged] = {}
        self._again_at: dict[str, float] = {}

    @property
    def fleets(self) -> frozenset[str]:
        """Names of those that this process works for now."""
        return frozenset(self._engaged)

    def interrupt(self) -> None:
        """Stop in order. Safe in a signal handler; idempotent."""
        self._stopping = True
        self._ferry.interrupt()

    def run(self, fleet_id: str) -> FleetRecord:
        """Work for one fleet until it is done, cannot go on, or this is interrupted.

        Raises:
            FleetError: FLEET_FAILED, some volumes failed; FLEET_STOPPED, a person is needed.
            CancelledError: INTERRUPTED.
            BusyError: LEFTOVERS, of a fleet that is cancelled.
        """
        room = self._room or fleet_in(self._fleets.get(fleet_id)).limits.at_once
        driven = self._fleets.driven(fleet_id)
        # Of one that is over, or waits for a person, a person has just asked for more.
        if not driven:
            self._fleets.set_state(fleet_id, State.PENDING)
        self._work(room, lambda: [fleet_id] if fleet_id in self._fleets.open_fleets() else None)
        record = self._fleets.get(fleet_id)
        if self._stopping:
            said = f"interrupted; `blockferry batch` of fleet {fleet_id} goes on from here"
            raise CancelledError(INTERRUPTED, said, fleet=fleet_id)
        if record.state in (State.WAITING.value, State.INTERRUPTED.value):
            said = f"fleet {fleet_id} stopped: {record.message}"
            raise FleetError("FLEET_STOPPED", said, fleet=fleet_id)
        if record.state == State.FAILED.value:
            failed = record.counts.get(State.FAILED.value, 0)
            raise FleetError("FLEET_FAILED", record.message, fleet=fleet_id, failed=failed)
        return record

    def serve(self) -> None:
        """Work for all fleets of the state that somebody has begun, until interrupted."""
        self._work(self._room or ROOM, lambda: list(self._fleets.open_fleets()), patient=True)

    def _work(
        self, room: int, which: Callable[[], list[str] | None], *, patient: bool = False
    ) -> None:
        """As one of the crew, and again as a new one when its lease was lost."""
        while not self._watch(room, which, patient=patient):
            self._say("", "warning", _CUT_OFF.text)

    def _watch(self, room: int, which: Callable[[], list[str] | None], *, patient: bool) -> bool:
        """Until there is nothing more to do (True), or the lease is lost (False)."""
        lost = threading.Event()
        with self._aboard(room, lost) as (holder, mover):
            try:
                while not (lost.is_set() or self._stopping):
                    try:
                        wanted = which()
                        mover.collect(self._known())
                        if wanted is None and not mover.moving:
                            return True
                        for fleet_id in wanted or ():
                            self._work_for(fleet_id, holder, patient=patient)
                        mover.take(self._known())
                        if not mover.moving:
                            self._disengage(set(self._engaged).difference(wanted or ()))
                    except AWAY as error:
                        _tell_away(error)
                    self._wake.wait(self._tick)
                    self._wake.clear()
            finally:
                self._wind_up(mover, lost)
        return self._stopping

    @contextmanager
    def _aboard(self, room: int, lost: threading.Event) -> Iterator[tuple[Holder, Mover]]:
        holder = Holder.of_this_process()
        self._join(holder, room)
        with ExitStack() as stack:
            stack.callback(self._leave, holder)
            keeper = LeaseKeeper(lambda: self._crew.renew(holder), lost.set)
            stack.enter_context(closing(keeper))
            mover = Mover(
                self._store, self._ferry, self._listener, holder=holder, now=self._now, room=room,
                wake=self._wake.set,
            )  # fmt: skip
            # Threads end before what they work with is closed.
            stack.callback(lambda: self._disengage(set(self._engaged)))
            stack.enter_context(closing(mover))
            yield holder, mover

    def _join(self, holder: Holder, room: int) -> None:
        while True:
            try:
                return self._crew.join(holder, room)
            except AWAY as error:
                if self._stopping:
                    raise
                _tell_away(error)
                time.sleep(self._tick)

    def _leave(self, holder: Holder) -> None:
        try:
            self._crew.leave(holder)
        except AWAY as error:
            _log.warning("the lease is left to expire: %s", reason_of(error))

    def _wind_up(self, mover: Mover, lost: threading.Event) -> None:
        """Stop what moves without loss, and write down what came of it while that counts."""
        while mover.moving:
            mover.stop_all(_CUT_OFF if lost.is_set() else _STOPPED)
            try:
                if lost.is_set():
                    mover.forget()
                else:
                    mover.collect(self._known())
            except AWAY as error:
                _tell_away(error)
            self._wake.wait(self._tick)
            self._wake.clear()

    # --- one fleet ------------------------------------------------------------------

    def _known(self) -> dict[str, Fleet]:
        return {own: engaged.fleet for own, engaged in self._engaged.items()}

    def _work_for(self, fleet_id: str, holder: Holder, *, patient: bool) -> None:
        """Have its clouds open, drive it if nobody does, and decide once if it is driven here.

        Args:
            fleet_id: The fleet.
            holder: This process.
            patient: Tell what fails, and try again later; else raise it.
        """
        if time.monotonic() < self._again_at.get(fleet_id, 0.0):
            return
        try:
            self._conduct(self._engage(fleet_id), holder)
        except BlockferryError as error:
            if error.reason == "FLEET_LOST":
                self._engaged[fleet_id].conductor = None
                return
            if not patient:
                raise
            self._say(fleet_id, "warning", f"cannot be worked for now: {error.message}")
            self._again_at[fleet_id] = time.monotonic() + _AGAIN_SECONDS

    def _engage(self, fleet_id: str) -> _Engaged:
        found = self._engaged.get(fleet_id)
        if found is None:
            record = self._fleets.get(fleet_id)
            fleet = fleet_in(record)
            with ExitStack() as stack:
                stack.enter_context(self._ferry.held(fleet.source, fleet.destination))
                stack.enter_context(delivering(self._store, record))
                found = _Engaged(record, fleet, stack.pop_all())
            self._engaged[fleet_id] = found
        return found

    def _conduct(self, engaged: _Engaged, holder: Holder) -> None:
        own = engaged.record.id
        if engaged.conductor is None:
            if self._fleets.driven(own):
                return
            try:
                self._fleets.acquire(own, holder)
            except BusyError:
                return
            engaged.conductor = Conductor(
                self._store, self._ferry, engaged.record, engaged.fleet, holder=holder,
                now=self._now,
            )  # fmt: skip
            engaged.conductor.begin()
        if engaged.conductor.step():
            engaged.conductor = None
            self._fleets.release(own, holder)

    def _disengage(self, which: set[str]) -> None:
        """Close the clouds of fleets that are over, or that this process leaves to others."""
        for own in which:
            engaged = self._engaged.pop(own)
            if engaged.conductor is not None:
                try:
                    engaged.conductor.close()
                    self._fleets.release(own, engaged.conductor.holder)
                except AWAY as error:
                    why = reason_of(error)
                    _log.warning("the lease of fleet %s is left to expire: %s", own, why)
            engaged.stack.close()

    def _say(self, fleet_id: str, level: str, message: str) -> None:
        self._listener(Noted(fleet_id, level, message))


def _tell_away(error: Exception) -> None:
    _log.warning("the state database is away: %s", reason_of(error))
    _log.debug("as this tells", exc_info=True)
