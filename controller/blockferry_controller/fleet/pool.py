"""A fleet's free pairs of instances: which are kept, and that none is left.

Who takes a lane of a pair, and who gives it back, is the business of migrations
(migration/pool.py). Whoever drives the fleet ends those that nobody will take, and speaks to
those that it keeps for longer than instances stay on that hear nobody.
"""

import logging
import threading
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final

from blockferry.errors import BlockferryError
from blockferry_controller.engine.away import explained
from blockferry_controller.engine.pair_records import PairRecord, PairState
from blockferry_controller.engine.state import StateStore
from blockferry_controller.fleet.ferry import Ferry
from blockferry_controller.fleet.spec import Pool
from blockferry_controller.migration.keeping import PAIR_UNKNOWN_HERE

_log = logging.getLogger(__name__)
AGAIN: Final = timedelta(seconds=30)
"""After which one that could not be deleted is tried again."""
FORSAKEN: Final = timedelta(minutes=2)
"""After which nobody takes a migration up any more whose controller is dead: others do within a
minute. Until then it has its lane; what was skipped, or could not leave, has it no longer."""
SPEAK: Final = timedelta(minutes=4)
"""How often a pair that is kept is spoken to: unheard for 15 minutes its instances end."""
SPARED: Final = timedelta(hours=10)
"""So long since it was booted a pair is kept without need: a lane that was in nobody's hands since
then has certificates of that time, which are good for twelve."""
TRIES: Final = 3
"""At the end of a fleet; `cleanup` is for what is left then."""
_AT_ONCE: Final = 8
"""Deletions take a minute, and a cloud is asked all the time."""


def spared(pairs: Sequence[PairRecord], *, least: int, now: datetime) -> list[PairRecord]:
    """Which free pairs are kept however long nobody is in them. Pure.

    Args:
        pairs: Of the fleet, those that hear us.
        least: So many pairs, those included that somebody is in and may come to.
        now: The time, UTC.
    """
    least -= sum(one.state is PairState.TAKEN for one in pairs)
    young = [one for one in pairs if one.state is PairState.FREE and now - one.made_at < SPARED]
    young.sort(key=lambda pair: pair.changed_at, reverse=True)
    return young[: max(0, least)]


def superfluous(
    pairs: Sequence[PairRecord],
    *,
    idle_seconds: int,
    wanted: int,
    now: datetime,
    kept: Collection[str] = (),
) -> list[PairRecord]:
    """Which pairs are to be ended now. Pure.

    Args:
        pairs: Of the fleet.
        idle_seconds: How long a free one is kept.
        wanted: How many volumes may still ask for a lane.
        now: The time, UTC.
        kept: Ids of those that are not to end for being idle.

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
        if wanted <= 0 or (one.changed_at <= since and one.id not in kept):
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


@dataclass(slots=True)
class _Words:
    """What is said to one pair that is kept, since nobody is in it."""

    free_since: datetime
    next_at: datetime
    in_vain: int = 0
    thread: threading.Thread | None = None


@dataclass
class PoolKeeper:
    """Ends the pairs of one fleet, and speaks to them, in threads. Not thread-safe.

    Attributes:
        store: The state database.
        ferry: Deletes a pair.
        fleet_id: Whose.
        pool: What the fleet's file says.
        now: The time, in UTC.
    """

    store: StateStore
    ferry: Ferry
    fleet_id: str
    pool: Pool
    now: Callable[[], datetime]
    pairs: list[PairRecord] = field(default_factory=list)
    """Those that have not ended, as last read."""
    _tries: dict[str, _Try] = field(default_factory=dict)
    _words: dict[str, _Words] = field(default_factory=dict)
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
        now = self.now()
        self._words = {one.id: self._words_for(one) for one in self.pairs}
        hearing = [one for one in self.pairs if self._words[one.id].in_vain < TRIES]
        kept = spared(hearing, least=self.pool.least, now=now)
        for one in superfluous(
            self.pairs,
            idle_seconds=self.pool.idle_seconds,
            wanted=max(0, wanted),
            now=now,
            kept=[one.id for one in kept],
        ):
            self._end(one)
        if wanted > 0:
            self._speak(kept)
        for one in self._forsaken():
            self._end(one)

    def _words_for(self, pair: PairRecord) -> _Words:
        """As nobody has been in it since."""
        known = self._words.get(pair.id)
        if known is None or known.free_since != pair.changed_at:
            return _Words(pair.changed_at, pair.changed_at + SPEAK)
        return known

    def _speak(self, kept: Sequence[PairRecord]) -> None:
        for one in kept:
            words = self._words[one.id]
            at_it = words.thread is not None and words.thread.is_alive()
            if self.now() >= words.next_at and not at_it and one.id not in self._tries:
                words.thread = threading.Thread(
                    target=self._speak_to, args=(one.id, words), name="keep pair", daemon=True
                )
                words.thread.start()

    def _speak_to(self, pair_id: str, words: _Words) -> None:
        with self._slots:
            try:
                self.ferry.speak_to_pair(pair_id)
            except Exception as error:  # noqa: BLE001 - it is kept no more, which is all
                unknown = isinstance(error, BlockferryError) and error.reason == PAIR_UNKNOWN_HERE
                words.next_at = self.now() + AGAIN
                words.in_vain = TRIES if unknown else words.in_vain + 1
                told = error.message if isinstance(error, BlockferryError) else repr(error)
                _log.warning("pair %s does not hear us: %s", pair_id, told)
            else:
                words.next_at = self.now() + SPEAK
                words.in_vain = 0

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
        for words in self._words.values():
            if words.thread is not None:
                words.thread.join()

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
                with explained():
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
