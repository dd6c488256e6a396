"""What moves one volume, for a fleet: no clouds, no agents, migrations in the store.

`script` says what becomes of a volume, by its id: an error to raise at each attempt, in
order; then it succeeds. `hold` keeps what runs until `let_go`, or until it is interrupted.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import count

from blockferry.errors import BlockferryError, CancelledError, NotFoundError
from blockferry_controller.clouds.port import Cloud
from blockferry_controller.engine.lease import Holder
from blockferry_controller.engine.pair_records import Held, PairRecord, PairState
from blockferry_controller.engine.pairs import Order
from blockferry_controller.engine.records import MigrationRecord, State
from blockferry_controller.engine.state import StateStore
from blockferry_controller.spec import Spec


class KeysOfAll:
    """Keys of all lanes, without a file."""

    def have(self, lane_id: str) -> bool:
        return bool(lane_id)

    def make(self, lane_id: str) -> None:
        pass


@dataclass
class FakeFerry:
    """See the module. Thread-safe."""

    store: StateStore
    clouds: dict[str, Cloud]
    script: dict[str, list[BlockferryError]] = field(default_factory=dict)
    ran: list[str] = field(default_factory=list)
    most_at_once: int = 0
    cancelled: list[str] = field(default_factory=list)
    ended_pairs: list[str] = field(default_factory=list)
    pair_errors: list[BlockferryError] = field(default_factory=list)
    """What the next deletions of a pair raise, in order."""
    spoken_to: list[str] = field(default_factory=list)
    """Pairs that heard that they are wanted."""
    deaf: list[BlockferryError] = field(default_factory=list)
    """What the next pairs raise that are spoken to, in order."""
    refused: set[str] = field(default_factory=set)
    """Clouds that nobody can log in to."""
    free: threading.Event = field(default_factory=threading.Event)
    freed: set[str] = field(default_factory=set)
    _numbers: Iterator[int] = field(default_factory=lambda: count(1))
    _stops: dict[str, threading.Event] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def __post_init__(self) -> None:
        self.free.set()

    @property
    def running(self) -> list[str]:
        """Ids of volumes that move now."""
        with self._lock:
            return [self.store.get(own).spec.source.volume for own in self._stops]

    def hold(self) -> None:
        """Let nothing end."""
        self.free.clear()

    def let_go(self) -> None:
        """Let all end."""
        self.free.set()

    def let_go_of(self, volume: str) -> None:
        """Let one end."""
        self.freed.add(volume)

    def new_id(self) -> str:
        return f"m-{next(self._numbers)}-{threading.get_ident()}"

    def create(self, spec: Spec, migration_id: str = "") -> MigrationRecord:
        self.store.create(migration_id, spec, spec.source.volume, spec.destination.volume)
        return self.store.get(migration_id)

    def run(self, migration_id: str) -> MigrationRecord:
        if self.store.get(migration_id).state == State.SUCCEEDED.value:
            return self.store.get(migration_id)
        holder = Holder.of_this_process()
        self.store.acquire(migration_id, holder)
        try:
            return self._run(self.store.get(migration_id))
        finally:
            self.store.release(migration_id, holder)

    def _run(self, record: MigrationRecord) -> MigrationRecord:
        migration_id = record.id
        volume = record.spec.source.volume
        held = self._take(record) if record.spec.pool else None
        stop = threading.Event()
        with self._lock:
            self._stops[migration_id] = stop
            self.ran.append(volume)
            self.most_at_once = max(self.most_at_once, len(self._stops))
        try:
            self._move(migration_id, volume, stop)
        except BaseException:
            if held is not None:
                self.store.pairs.close(held)
                self._end_if_last(self.store.pairs.leave(held))
            raise
        finally:
            with self._lock:
                del self._stops[migration_id]
        if held is not None:
            self._end_if_last(self.store.pairs.give_back(held, {}))
        return self.store.get(migration_id)

    def _end_if_last(self, pair: PairRecord | None) -> None:
        if pair is not None and pair.state is PairState.ENDING:
            self.end_pair(pair.id)

    def _take(self, record: MigrationRecord) -> Held | None:
        pool = record.spec.pool
        assert pool is not None
        order = Order(
            record.id, record.epoch, pool.fleet, "east", "west", "", pool.most, pool.lanes
        )
        with self._lock:
            number = next(self._numbers)
        return self.store.pairs.take(order, lambda: f"pair-{number}", KeysOfAll())

    def _move(self, migration_id: str, volume: str, stop: threading.Event) -> None:
        while not self.free.wait(0.005) and volume not in self.freed:
            if stop.is_set():
                self.store.set_state(migration_id, State.INTERRUPTED)
                raise CancelledError("INTERRUPTED", "interrupted")
        errors = self.script.get(volume, [])
        if errors:
            error = errors.pop(0)
            self.store.set_state(migration_id, State.FAILED, message=error.message)
            raise error
        self.store.set_state(migration_id, State.SUCCEEDED)

    def interrupt(self, migration_id: str = "") -> None:
        for own, stop in list(self._stops.items()):
            if migration_id in ("", own):
                stop.set()

    def cancel(self, migration_id: str) -> MigrationRecord:
        self.cancelled.append(self.store.get(migration_id).spec.source.volume)
        self.store.set_state(migration_id, State.CANCELLED)
        return self.store.get(migration_id)

    def end_pair(self, pair_id: str) -> bool:
        pair = self.store.pairs.find(pair_id)
        ending = None if pair is None else self.store.pairs.end(pair)
        if ending is None:
            return False
        if self.pair_errors:
            raise self.pair_errors.pop(0)
        self.store.pairs.ended(ending)
        self.ended_pairs.append(pair_id)
        return True

    def speak_to_pair(self, pair_id: str) -> None:
        self.spoken_to.append(pair_id)
        if self.deaf:
            raise self.deaf.pop(0)

    @contextmanager
    def cloud(self, name: str) -> Iterator[Cloud]:
        yield self.clouds[name]

    @contextmanager
    def held(self, *clouds: str) -> Iterator[None]:
        for name in clouds:
            if name in self.refused:
                raise NotFoundError("CLOUD_NOT_FOUND", f"no {name}")
        yield
