"""Takes items that are offered, and moves them, in a thread each. Decides nothing.

Rules:
* What a volume's way is, is none of its business: it runs migrations by the same service as
  `blockferry migrate`.
* Of what is offered it takes its even share among the living; what nobody else has taken for
  LEFT_SECONDS it takes as far as it has room.
* A migration that still ends in a thread here is not taken again: its lease is this process's.
"""

import math
import queue
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from typing import Final

from blockferry_controller.engine.away import AWAY
from blockferry_controller.engine.crew import Taken
from blockferry_controller.engine.fleet_records import ItemRecord, ItemState
from blockferry_controller.engine.lease import Holder
from blockferry_controller.engine.state import StateStore
from blockferry_controller.events import Listener, Noted
from blockferry_controller.fleet.admission import Reason, Why
from blockferry_controller.fleet.ferry import Ferry
from blockferry_controller.fleet.outcome import judge
from blockferry_controller.fleet.spec import Fleet

LEFT_SECONDS: Final = 5.0


class Mover:
    """Moves what `holder` has taken. Not thread-safe, but for `moving`.

    Args:
        store: The state database.
        ferry: Moves one volume.
        listener: Hears what happens.
        holder: This process, one of the crew.
        now: The time, in UTC.
        room: Volumes at a time.
        wake: Called, from any thread, when one has ended.
    """

    def __init__(
        self,
        store: StateStore,
        ferry: Ferry,
        listener: Listener,
        *,
        holder: Holder,
        now: Callable[[], datetime],
        room: int,
        wake: Callable[[], None],
    ) -> None:
        self._store, self._ferry, self._listener = store, ferry, listener
        self._holder, self._now, self._room, self._wake = holder, now, room, wake
        self._pool = ThreadPoolExecutor(room, thread_name_prefix="fleet")
        self._ended: queue.SimpleQueue[tuple[Taken, BaseException | None]] = queue.SimpleQueue()
        self._own: dict[str, Taken] = {}
        self._stopped: dict[str, Reason] = {}
        self._offered_at: dict[tuple[str, int], float] = {}

    @property
    def moving(self) -> bool:
        """Whether a thread runs, or what came of one is not written yet."""
        return bool(self._own)

    def close(self) -> None:
        """Wait for all threads; stop them before."""
        self._pool.shutdown()

    def take(self, fleets: Mapping[str, Fleet]) -> None:
        """Stop what is to be stopped, and take what is offered of `fleets`."""
        taken = self._store.crew.taken()
        mine = {one.migration_id: one for one in taken if one.holder == str(self._holder)}
        for own in self._own:
            held = mine.get(own)
            if held is None:
                self.stop(own, Reason(Why.RETRY, "another process has taken it"))
            elif held.why:
                self.stop(own, Reason(Why(held.why), held.reason))
        for one in mine.values():
            # It was taken, and the database was away before it could say so.
            if one.migration_id not in self._own and one.fleet_id in fleets:
                self._start(one)
        offered = [one for one in taken if not one.holder and one.fleet_id in fleets]
        self._begin(offered, math.ceil(len(taken) / max(1, len(self._store.crew.alive()))))

    def _begin(self, offered: list[Taken], even_share: int) -> None:
        now, before = time.monotonic(), self._offered_at
        keys = {one.migration_id: (one.fleet_id, one.position) for one in offered}
        self._offered_at = {key: before.get(key, now) for key in keys.values()}
        for one in offered:
            left = now - self._offered_at[keys[one.migration_id]] >= LEFT_SECONDS
            if len(self._own) >= self._room or not (left or len(self._own) < even_share):
                return
            if one.migration_id in self._own:
                continue
            if self._store.crew.take(one.fleet_id, one.position, self._holder):
                self._start(one)

    def _start(self, one: Taken) -> None:
        # Moved first, told then: what is its own and never begins would never end.
        self._own[one.migration_id] = one
        self._pool.submit(self._move, one)
        self._note(one)

    def _note(self, taken: Taken) -> None:
        item = self._store.fleets.item(taken.fleet_id, taken.position)
        epoch = self._store.get(taken.migration_id).epoch
        said = f"{_name(item)} {'goes on' if epoch else 'begins'}: migration {taken.migration_id}"
        self._listener(Noted(taken.fleet_id, "info", said))

    def _move(self, taken: Taken) -> None:
        """In a thread of its own; what it raises is told to the loop."""
        error: BaseException | None = None
        try:
            self._ferry.run(taken.migration_id)
        except BaseException as caught:  # noqa: BLE001 - judged by the loop
            error = caught
        self._ended.put((taken, error))
        self._wake()

    def collect(self, fleets: Mapping[str, Fleet]) -> None:
        """Write down what came of those that have ended.

        Args:
            fleets: At least those of which items were taken.
        """
        while True:
            try:
                taken, error = self._ended.get_nowait()
            except queue.Empty:
                return
            try:
                self._write(taken, error, fleets[taken.fleet_id])
            except AWAY:
                self._ended.put((taken, error))
                raise
            self._own.pop(taken.migration_id)
            self._stopped.pop(taken.migration_id, None)

    def forget(self) -> None:
        """Drop what came of those that have ended: others have gone on with them."""
        while True:
            try:
                taken, _ = self._ended.get_nowait()
            except queue.Empty:
                return
            self._own.pop(taken.migration_id)

    def _write(self, taken: Taken, error: BaseException | None, fleet: Fleet) -> None:
        item = self._store.fleets.item(taken.fleet_id, taken.position)
        found = judge(
            item, error, most_attempts=fleet.attempts,
            stopped=self._stopped.get(taken.migration_id), now=self._now(),
        )  # fmt: skip
        if not self._store.crew.give_back(
            taken.fleet_id, taken.position, self._holder,
            state=found.state, why=found.why, reason=found.reason, attempts=found.attempts,
            not_before=found.not_before, ended_at=self._now() if found.state.final else None,
        ):  # fmt: skip
            return
        told = f": {found.reason}" if found.reason else ""
        level = "warning" if found.state is ItemState.FAILED else "info"
        said = f"{_name(item)} {found.state.value.lower()}{told}"
        self._listener(Noted(taken.fleet_id, level, said))

    def stop(self, migration_id: str, reason: Reason) -> None:
        """Have one of its own stopped without loss.

        Asked again each time: one that was only just begun may not have heard it.
        """
        self._stopped.setdefault(migration_id, reason)
        self._ferry.interrupt(migration_id)

    def stop_all(self, reason: Reason) -> None:
        """The same for all."""
        for own in list(self._own):
            self.stop(own, reason)


def _name(item: ItemRecord) -> str:
    return item.name or item.volume_id
