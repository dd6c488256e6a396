"""A fleet's free pairs of instances: how long they are kept, and that none is left.

Who takes a lane of a pair, and who gives it back, is the business of migrations
(migration/pool.py). Whoever drives the fleet ends those that nobody will take.
"""

import logging
import threading
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final

from blockferry.errors import BlockferryError
from blockferry_controller.engine.pair_records import PairRecord, PairState
from blockferry_controller.engine.state import StateStore
from blockferry_controller.fleet.ferry import Ferry

_log = logging.getLogger(__name__)
AGAIN: Final = timedelta(seconds=30)
"""After which one that could not be deleted is tried again."""
FORSAKEN: Final = timedelta(minutes=2)
"""After which nobody takes a migration up any more whose controller is dead: others do within a
minute. Until then it has its lane; what was skipped, or could not leave, has it no longer."""
TRIES: Final = 3
"""At the end of a fleet; `cleanup` is for what is left then."""
_AT_ONCE: Final = 8
"""Deletions take a minute, and a cloud is asked all the time."""


def superfluous(
    pairs: Sequence[PairRecord], *, idle_seconds: int, wanted: int, now: datetime
) -> list[PairRecord]:
    """Which pairs are to be ended now. Pure.

    Args:
        pairs: Of the fleet.
        idle_seconds: How long a free one is kept.
        wanted: How many volumes may still ask for a lane.
        now: The time, UTC.

    Returns:
        What ends already; of the free ones, those that nobody was in for too long, and
        those that are more than will be asked for, the longest unused first.
    """
    free = [one for one in pairs if one.state is PairState.FREE]
    free.sort(key=lambda pair: pair.changed_at, reverse=True)
    since = now - timedelta(seconds=idle_seconds)
    wanted -= sum(one.room for one in pairs if one.state is PairState.TAKEN)
    old = []
    for one in free:
        if wanted <= 0 or one.changed_at <= since:
            old.append(one)
        else:
            wanted -= one.room
    return [one for one in pairs if one.state is PairState.ENDING] + old[::-1]


@dataclass(slots=True)
class _Try:
    """One pair that is being deleted, or could not be."""

    thread: threading.Thread
    count: int
    again_at: datetime
    error: str = ""


@dataclass
class PoolKeeper:
    """Ends the pairs of one fleet, in threads. Not thread-safe.

    Attributes:
        store: The state database.
        ferry: Deletes a pair.
        fleet_id: Whose.
        idle_seconds: How long a free one is kept.
        now: The time, in UTC.
    """

    store: StateStore
    ferry: Ferry
    fleet_id: str
    idle_seconds: int
    now: Callable[[], datetime]
    pairs: list[PairRecord] = field(default_factory=list)
    """Those that have not ended, as last read."""
    _tries: dict[str, _Try] = field(default_factory=dict)
    _undriven: dict[str, datetime] = field(default_factory=dict)
    _looked_at: datetime | None = None
    _finishing: bool = False
    _slots: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(_AT_ONCE))

    def free_lanes(self, running: Iterable[str]) -> int:
        """How many are left for who begins now.

        Args:
            running: Migrations that have begun: those without a lane are about to take one.
        """
        housed = {lane.migration_id for one in self.pairs for lane in one.guests}
        coming = sum(own not in housed for own in running)
        return max(0, sum(one.room for one in self.pairs) - coming)

    def lanes_of(self, migrations: Collection[str], pairs: Collection[str]) -> int:
        """How many of `migrations` are in one of `pairs`, or will find a free lane there."""
        inside = {lane.migration_id: one.id for one in self.pairs for lane in one.guests}
        housed = sum(inside.get(own) in pairs for own in migrations)
        coming = sum(own not in inside for own in migrations)
        return housed + min(coming, sum(one.room for one in self.pairs if one.id in pairs))

    @property
    def shut_lanes(self) -> int:
        """How many are of pairs that nobody may take any more, and in which others are."""
        draining = [one for one in self.pairs if one.state is PairState.DRAINING]
        return sum(len(one.lanes) - len(one.guests) for one in draining)

    def tend(self, volumes: int) -> None:
        """Begin to end what is superfluous; returns at once.

        Args:
            volumes: How many are not through; those that have a lane ask for no other.
        """
        self.pairs = self.store.pairs.of(self.fleet_id)
        wanted = volumes - sum(len(one.guests) for one in self.pairs)
        for one in superfluous(
            self.pairs, idle_seconds=self.idle_seconds, wanted=max(0, wanted), now=self.now()
        ):
            self._end(one)
        for one in self._forsaken():
            self._end(one)

    def _forsaken(self) -> list[PairRecord]:
        """Pairs of which all guests have been driven by nobody for too long."""
        now = self.now()
        if self._looked_at is not None and now - self._looked_at < AGAIN:
            return []
        self._looked_at = now
        held = [one for one in self.pairs if one.guests and not self._is_driven(one)]
        self._undriven = {one.id: self._undriven.get(one.id, now) for one in held}
        return [one for one in held if now - self._undriven[one.id] >= FORSAKEN]

    def _is_driven(self, pair: PairRecord) -> bool:
        return any(self.store.driven(lane.migration_id) for lane in pair.guests)

    def finish(self) -> list[str] | None:
        """End all, now that nothing runs any more.

        Returns:
            None while some are being deleted; else why each is left that could not be.
        """
        if not self._finishing:
            self._finishing = True
            for earlier in self._tries.values():
                earlier.count = 0
        self.pairs = [
            one
            for one in self.store.pairs.of(self.fleet_id)
            # Of what was skipped while its controller was dead, too.
            if not self._is_driven(one)
        ]
        for one in self.pairs:
            known = self._tries.get(one.id)
            if known is None or known.count < TRIES:
                self._end(one)
        known_ones = [self._tries[one.id] for one in self.pairs]
        if any(one.thread.is_alive() or one.count < TRIES for one in known_ones):
            return None
        return [f"pair {one.id}: {self._tries[one.id].error}" for one in self.pairs]

    def close(self) -> None:
        """Nobody drives the fleet from here any more: leave no free pair, and wait for it."""
        self.tend(0)
        for one in self._tries.values():
            one.thread.join()

    def _end(self, pair: PairRecord) -> None:
        known = self._tries.get(pair.id)
        if known is not None and (known.thread.is_alive() or self.now() < known.again_at):
            return
        thread = threading.Thread(target=self._work, args=(pair.id,), name="end pair", daemon=True)
        count = 1 if known is None else known.count + 1
        self._tries[pair.id] = _Try(thread, count, self.now())
        thread.start()

    def _work(self, pair_id: str) -> None:
        own = self._tries[pair_id]
        with self._slots:
            try:
                self.ferry.end_pair(pair_id)
            except BlockferryError as error:
                own.error = error.message
            except Exception as error:  # noqa: BLE001 - told like any other
                _log.exception("pair %s", pair_id)
                own.error = repr(error)
        if own.error:
            own.again_at = self.now() + AGAIN
        else:
            own.count = 0
