"""The migration service as the command line sees it, without clouds or agents.

`ScriptedMigrations.script` is what happens in an attempt: called with the fake
itself and the migration's id, it tells events, changes the store, raises.
"""

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from msgspec.structs import asdict

from blockferry.errors import BlockferryError, CancelledError
from blockferry_controller.engine.lease import Holder
from blockferry_controller.engine.records import MigrationRecord, State
from blockferry_controller.engine.state import StateStore
from blockferry_controller.events import Listener, Progress, Progressed
from blockferry_controller.migration.cleanup import CleanupItem
from blockferry_controller.migration.preflight.check import Check
from blockferry_controller.migration.service import Migrations
from blockferry_controller.spec import Spec

DIGEST = "blake3:" + "ab" * 32


def succeed(service: "ScriptedMigrations", migration_id: str) -> None:
    """An attempt that copies 10 MiB and proves it."""
    done = Progress(
        size_bytes=10 << 20,
        committed_bytes=10 << 20,
        data_bytes=6 << 20,
        zero_bytes=4 << 20,
        sent_bytes=6 << 20,
        wire_bytes=3 << 20,
        verified_bytes=10 << 20,
    )
    service.listener(Progressed(migration_id, done))
    service.store.set_size(migration_id, done.size_bytes)
    service.store.save_progress(migration_id, done)
    service.store.add_step(migration_id, 1, "copy", 1.25, "10 MiB")
    service.store.set_facts(migration_id, source_volume_id="vol-1", digest=DIGEST, verified=True)
    result = {**asdict(done), "verified": True, "digest": DIGEST, "duration_seconds": 2.5}
    service.store.set_state(migration_id, State.SUCCEEDED, result=result)


def wait_for_interrupt(service: "ScriptedMigrations", migration_id: str) -> None:
    """An attempt that runs until it is interrupted."""
    service.store.save_progress(migration_id, Progress(size_bytes=100, committed_bytes=50))
    service.running.set()
    assert service.stop.wait(30)
    service.store.set_state(migration_id, State.INTERRUPTED)
    raise CancelledError("INTERRUPTED", "interrupted", migration=migration_id)


@dataclass
class ScriptedMigrations:
    """See the module; records what it was asked for."""

    store: StateStore
    listener: Listener
    script: "Callable[[ScriptedMigrations, str], None]" = succeed
    checks: list[Check] = field(default_factory=list)
    left: list[CleanupItem] = field(default_factory=list)
    asked: list[tuple[object, ...]] = field(default_factory=list)
    stop: threading.Event = field(default_factory=threading.Event)
    running: threading.Event = field(default_factory=threading.Event)

    def create(self, spec: Spec) -> MigrationRecord:
        self.asked.append(("create", spec))
        self.store.create("m1-first", spec, spec.source.volume, spec.destination.volume)
        return self.store.get("m1-first")

    def run(self, migration_id: str) -> MigrationRecord:
        self.asked.append(("run", migration_id))
        holder = Holder.of_this_process()
        self.store.acquire(migration_id, holder)
        try:
            self.script(self, migration_id)
        finally:
            self.store.release(migration_id, holder)
        return self.store.get(migration_id)

    def resume(self, migration_id: str) -> MigrationRecord:
        self.asked.append(("resume", migration_id))
        self.script(self, migration_id)
        return self.store.get(migration_id)

    def cancel(self, migration_id: str) -> MigrationRecord:
        self.asked.append(("cancel", migration_id))
        self.store.set_state(migration_id, State.CANCELLED, message="cancelled")
        return self.store.get(migration_id)

    def cleanup(
        self, clouds: Sequence[str], *, dry_run: bool
    ) -> tuple[list[CleanupItem], list[BlockferryError]]:
        self.asked.append(("cleanup", list(clouds), dry_run))
        return self.left, []

    def preflight(self, spec: Spec) -> list[Check]:
        self.asked.append(("preflight", spec))
        return self.checks

    def digest(self, path: str) -> str:
        self.asked.append(("digest", path))
        return DIGEST

    def interrupt(self) -> None:
        self.stop.set()


def service(
    made: list[ScriptedMigrations],
    script: Callable[[ScriptedMigrations, str], None] = succeed,
    *,
    checks: list[Check] | None = None,
    left: list[CleanupItem] | None = None,
) -> Callable[[StateStore, Listener], Migrations]:
    """What `Session.service` takes; each service made is appended to `made`."""

    def make(store: StateStore, listener: Listener) -> Migrations:
        fake = ScriptedMigrations(store, listener, script, checks or [], left or [])
        made.append(fake)
        return fake  # type: ignore[return-value]  # the commands use nothing else of it

    return make
