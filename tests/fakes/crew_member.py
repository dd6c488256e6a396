"""A process of the crew whose volumes take a while and whose agents keep a log of epochs.

`python -m tests.fakes.crew_member STATE DIRECTORY SECONDS [FLEET]`: works for FLEET, as
`blockferry batch` does, or for all until SIGTERM, as `blockferry worker`. Leases, epochs,
threads and the state are real; of a migration only its agent is left, as a file in
DIRECTORY: it refuses a lower epoch than it has seen, and logs every command of a higher.
"""

import fcntl
import json
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import datetime, timezone
from pathlib import Path

from blockferry.errors import BlockferryError, BusyError, CancelledError
from blockferry_controller.clouds.port import Cloud
from blockferry_controller.engine.lease import Holder, LeaseKeeper
from blockferry_controller.engine.records import MigrationRecord, State
from blockferry_controller.engine.state import StateStore
from blockferry_controller.events import Event, Noted
from blockferry_controller.fleet.worker import Worker
from blockferry_controller.migration.context import INTERRUPTED, LEASE_LOST
from blockferry_controller.spec import Spec
from tests.fakes.cloud import MemoryCloud

STEPS = 20


class AgentLog:
    """The agent of one migration, shared by all processes."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def command(self, epoch: int, word: str) -> None:
        """Obey, or refuse who was taken over.

        Raises:
            BusyError: LEASE_LOST.
        """
        with self._path.open("a+", encoding="utf-8") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            file.seek(0)
            seen = max((json.loads(line)["epoch"] for line in file), default=0)
            obeyed = epoch >= seen
            said = {"epoch": epoch, "pid": os.getpid(), "word": word if obeyed else "refused"}
            file.write(json.dumps(said) + "\n")
        if not obeyed:
            raise BusyError(LEASE_LOST, "another controller has taken it")


class SlowFerry:
    """See the module; a Ferry."""

    def __init__(self, store: StateStore, directory: Path, seconds: float) -> None:
        self._store, self._directory, self._seconds = store, directory, seconds
        self._holder = Holder.of_this_process()
        self._stops: dict[str, threading.Event] = {}
        self._clouds = {name: MemoryCloud(name) for name in ("east", "west")}
        for cloud in self._clouds.values():
            cloud.quotas = dict.fromkeys(cloud.quotas, 1 << 50)

    def new_id(self) -> str:
        return os.urandom(6).hex()

    def create(self, spec: Spec, migration_id: str = "") -> MigrationRecord:
        self._store.create(migration_id, spec, spec.source.volume, spec.destination.volume)
        return self._store.get(migration_id)

    def run(self, migration_id: str) -> MigrationRecord:
        if self._store.get(migration_id).state == State.SUCCEEDED.value:
            return self._store.get(migration_id)
        epoch = self._store.acquire(migration_id, self._holder)
        stop = self._stops[migration_id] = threading.Event()
        lost = threading.Event()
        agent = AgentLog(self._directory / f"{migration_id}.log")
        renew = LeaseKeeper(lambda: self._store.renew(migration_id, self._holder), lost.set)
        with closing(renew):
            for at in range(STEPS):
                agent.command(epoch, f"step {at}")
                if stop.wait(self._seconds / STEPS):
                    raise CancelledError(INTERRUPTED, "interrupted")
                if lost.is_set():
                    raise BusyError(LEASE_LOST, "the lease is lost")
            agent.command(epoch, "done")
        self._store.set_state(migration_id, State.SUCCEEDED)
        self._store.release(migration_id, self._holder)
        return self._store.get(migration_id)

    def interrupt(self, migration_id: str = "") -> None:
        for own, stop in list(self._stops.items()):
            if migration_id in ("", own):
                stop.set()

    def cancel(self, migration_id: str) -> MigrationRecord:
        raise NotImplementedError

    def end_pair(self, pair_id: str) -> bool:
        raise NotImplementedError

    def speak_to_pair(self, pair_id: str) -> None:
        raise NotImplementedError

    @contextmanager
    def cloud(self, name: str) -> Iterator[Cloud]:
        yield self._clouds[name]

    @contextmanager
    def held(self, *clouds: str) -> Iterator[None]:
        yield


def main() -> int:
    """Work; the exit code is that of the error, if one ended it."""
    state, directory, seconds, *fleet = sys.argv[1:]

    def tell(event: Event) -> None:
        if isinstance(event, Noted):
            print(f"{time.time():.1f} {event.message}", flush=True)

    with closing(StateStore.open(state)) as store:
        ferry = SlowFerry(store, Path(directory), float(seconds))
        worker = Worker(
            store, ferry, tell, now=lambda: datetime.now(timezone.utc), tick_seconds=0.2, room=4
        )
        signal.signal(signal.SIGTERM, lambda *_: worker.interrupt())
        try:
            if fleet:
                worker.run(fleet[0])
            else:
                worker.serve()
        except BlockferryError as error:
            print(error.message, flush=True)
            return error.meaning.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
