"""Brings a fleet's events to its hooks, each hook in a thread of its own.

Rules:
* The history is the queue: what is to be told is there before anybody is told, in the
  transaction of what it tells of, and is read a page at a time. How far a hook has got is
  beside it (engine/deliveries.py). So every event is told at least once, whoever dies when.
* In order, and one process at a time for each hook.
* A hook is tried `attempts` times with growing, jittered pauses, then the event is given up,
  which the report tells. While a hook has not answered since, each further event has one try.
* The fleet is never waited for by a hook, nor a hook by the fleet: when the fleet ends there is
  one time-out left, for all of them together. What is still there then, the next batch brings.
"""

import logging
import random
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from sqlalchemy.exc import SQLAlchemyError

from blockferry_controller.engine.away import reason_of
from blockferry_controller.engine.fleet_records import FleetRecord
from blockferry_controller.engine.history import Entry
from blockferry_controller.engine.lease import Holder
from blockferry_controller.engine.state import StateStore
from blockferry_controller.fleet.founding import fleet_in
from blockferry_controller.fleet.hooks.sending import Send, UndeliveredError, send
from blockferry_controller.fleet.spec import Hook

_log = logging.getLogger(__name__)
_PAGE: Final = 100
_POLL_SECONDS: Final = 0.5
_FIRST_PAUSE_SECONDS: Final = 1.0
_LONGEST_PAUSE_SECONDS: Final = 60.0
_CLAIM_SECONDS: Final = 90.0
"""Besides the time-out: longer than any pause."""


@contextmanager
def delivering(
    store: StateStore, record: FleetRecord, how: Send = send, pause: float = _FIRST_PAUSE_SECONDS
) -> Iterator[None]:
    """Deliver what happens in the block, and is left from before, to the fleet's hooks.

    Args:
        store: Stays open for as long as the longest time-out after the block.
        record: The fleet.
        how: Tells a hook an event.
        pause: Seconds after the first failure, on average.
    """
    hooks = fleet_in(record).hooks
    couriers = [Courier(store, record.id, hook, how, pause) for hook in hooks]
    try:
        yield
    finally:
        until = time.monotonic() + max((hook.timeout_seconds for hook in hooks), default=0)
        for courier in couriers:
            courier.finish(until)
        for courier in couriers:
            courier.join(until)


class Courier:
    """Delivers to one hook, from now on. Args as of `delivering`."""

    def __init__(self, store: StateStore, fleet: str, hook: Hook, how: Send, pause: float) -> None:
        self._deliveries, self._history = store.deliveries, store.history
        self._fleet, self._hook, self._send, self._pause = fleet, hook, how, pause
        self._holder = str(Holder.of_this_process())
        self._over = threading.Event()
        self._until = float("inf")
        self._thread = threading.Thread(target=self._run, name=f"hook {hook.name}", daemon=True)
        self._thread.start()

    def finish(self, until: float) -> None:
        """Bring what is there, and end by `until`, on the monotonic clock."""
        self._until = until
        self._over.set()

    def join(self, until: float) -> None:
        """Wait for its end, hardly longer than `until`: a name that does not resolve is left."""
        self._thread.join(max(0.0, until - time.monotonic()) + 1)

    def _run(self) -> None:
        while True:
            try:
                return self._deliver()
            except SQLAlchemyError as error:
                why = reason_of(error)
                _log.warning("the state is away for hook %s: %s", self._hook.name, why)
                _log.debug("as this tells", exc_info=True)
            except Exception:  # noqa: BLE001 - told, and no more than that
                # A defect of ours: the fleet's way goes on without this hook.
                _log.exception("hook %s is not served any more", self._hook.name)
                return None
            if self._over.wait(_POLL_SECONDS):
                return None

    def _deliver(self) -> None:
        while not self._claim():
            if self._over.wait(_POLL_SECONDS):
                return
        try:
            self._deliver_all()
        finally:
            self._deliveries.release(self._fleet, self._hook.name, self._holder)

    def _claim(self) -> bool:
        seconds = self._hook.timeout_seconds + _CLAIM_SECONDS
        return self._deliveries.claim(self._fleet, self._hook.name, self._holder, seconds)

    def _deliver_all(self) -> None:
        reached = self._deliveries.reached(self._fleet, self._hook.name)
        tries = self._hook.attempts
        while True:
            # Asked before it is read: what was written down before the end is read after it.
            over = self._over.is_set()
            newest = self._history.last_number(self._fleet)
            page = self._history.of_fleet(self._fleet, reached, _PAGE, self._hook.on)
            for entry in page:
                error = self._bring(entry, tries)
                if error and self._over.is_set():
                    self._deliveries.failed(self._fleet, self._hook.name, error)
                    return
                tries = 1 if error else self._hook.attempts
                self._deliveries.told(self._fleet, self._hook.name, entry, error)
                reached = entry.number
                if not self._claim():
                    return
            if page:
                continue
            if newest > reached:
                # None of its events: the history need not keep them for it.
                self._deliveries.passed(self._fleet, self._hook.name, newest)
                reached = newest
            if over:
                return
            self._over.wait(_POLL_SECONDS)
            if not self._claim():
                return

    def _bring(self, entry: Entry, tries: int) -> str:
        """Empty when it was delivered, else why not."""
        error = "the fleet ended before it could be told"
        pause = self._pause
        for at in range(tries):
            if at:
                self._over.wait(pause * (0.5 + random.random()))  # noqa: S311 - jitter
                pause = min(pause * 2, _LONGEST_PAUSE_SECONDS)
                self._claim()
            left = self._until - time.monotonic()
            if left <= 0:
                break
            try:
                self._send(self._hook, entry, min(float(self._hook.timeout_seconds), left))
            except UndeliveredError as failure:
                error = str(failure)
            else:
                return ""
        return error
