"""Migrations as the command line and the fleet see them: make, run, resume, stop."""

import secrets
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress
from datetime import datetime, timezone
from functools import partial
from typing import Final

from msgspec.structs import replace

from blockferry.errors import BlockferryError, BusyError, InternalError, PreconditionError
from blockferry.identity import Role
from blockferry_controller.agents.exchange import Exchanges
from blockferry_controller.agents.port import Dial
from blockferry_controller.clouds.port import Cloud
from blockferry_controller.clouds.remembering import remembering
from blockferry_controller.engine.attempt import Engine, PlainEngine, StepRunner
from blockferry_controller.engine.away import AWAY, explain, explained
from blockferry_controller.engine.lease import Holder, LeaseKeeper
from blockferry_controller.engine.pair_records import PairState
from blockferry_controller.engine.records import MigrationRecord, State
from blockferry_controller.engine.state import StateStore
from blockferry_controller.events import Listener
from blockferry_controller.migration import plan, pool
from blockferry_controller.migration.asking import Asking
from blockferry_controller.migration.cleanup import CleanupItem, clean, clean_keys, end_pairs
from blockferry_controller.migration.connections import Shared
from blockferry_controller.migration.context import Context, SharedPair, Side
from blockferry_controller.migration.digest import digest_path
from blockferry_controller.migration.ending import Seal, note_silent_end, seal_and_destroy_keys
from blockferry_controller.migration.keeping import speak_to
from blockferry_controller.migration.keyring import LaneKeys
from blockferry_controller.migration.preflight.check import Check
from blockferry_controller.migration.result import Results
from blockferry_controller.migration.silence import Silence
from blockferry_controller.migration.steps.finish import HANDING_OVER
from blockferry_controller.migration.steps.preflight import dry_run
from blockferry_controller.migration.steps.tunnel import close_exchange
from blockferry_controller.spec import Endpoint, Kind, Spec

_ALPHABET: Final = "abcdefghjkmnpqrstvwxyz23456789"
_LETTERS: Final = 8
"""Other states, which may move volumes of the same clouds, cannot be asked: 10,000 of theirs in a
day and 10,000 of ours have one in common in one of 6,000 such days."""


class Migrations:
    """All migrations of one state database, driven from this process.

    Args:
        store: The state database; closed by its owner.
        connect_cloud: Opens a cloud by its name in clouds.yaml, or `local`.
        dial: Gets hold of agents.
        listener: Hears what happens.
        seal: Makes the signed report at the end; None: there is none.

    Several may be run at once, each in a thread of its own; `interrupt` may come from a
    signal handler.
    """

    def __init__(
        self,
        store: StateStore,
        connect_cloud: Callable[[str], Cloud],
        dial: Dial,
        listener: Listener,
        seal: Seal | None = None,
    ) -> None:
        self._store = store
        self._connect = connect_cloud
        self._dial = dial
        self._listener = listener
        self._seal = seal
        self._results = Results(store, listener, seal)
        self._holder = Holder.of_this_process()
        self._stop = threading.Event()
        self._running: dict[str, Context] = {}
        self._exchanges = Exchanges()
        self._shared_clouds = Shared(lambda name: remembering(connect_cloud(name)))
        self._shared_engine = Shared(partial(launch_durable, store))

    def new_id(self, prefix: str = "") -> str:
        """An id that nothing of this state has; see _LETTERS of those of others."""
        day = datetime.now(timezone.utc).strftime("%y%m%d")
        while True:
            drawn = "".join(secrets.choice(_ALPHABET) for _ in range(_LETTERS))
            if not self._store.is_taken(own := f"{prefix}{day}-{drawn}"):
                return own

    def create(self, spec: Spec, migration_id: str = "") -> MigrationRecord:
        """Remember a new migration, by an id that was asked for or a new one."""
        migration_id = migration_id or self.new_id()
        source, destination = spec.source, spec.destination
        kept_name = replace(destination, volume=destination.volume or source.volume)
        self._store.create(migration_id, spec, _label(source), _label(kept_name))
        return self._store.get(migration_id)

    def preflight(self, spec: Spec) -> list[Check]:
        """What `migrate --dry-run` shows; changes nothing."""
        with self._clouds(spec) as (source, destination):
            context = self._make_context("dry-run", 1, spec, source, destination)
            return list(dry_run(context))

    def run(self, migration_id: str) -> MigrationRecord:
        """Run a migration to its end, from wherever it is.

        Raises:
            BlockferryError: why it failed; the state database knows it, too, unless that is what
                does not answer (STATE_AWAY).
            BusyError: MIGRATION_BUSY, another process drives it.
        """
        with explained():
            return self._run(migration_id)

    def _run(self, migration_id: str) -> MigrationRecord:
        record = self._store.get(migration_id)
        if record.state == State.SUCCEEDED.value:
            seal_and_destroy_keys(self._store, record.id, self._seal)
            return record
        if record.state == State.CANCELLED.value:
            raise PreconditionError(
                "MIGRATION_CANCELLED",
                f"migration {record.id} was cancelled and holds nothing any more; start a new one",
                migration=record.id,
            )
        epoch = self._store.acquire(record.id, self._holder)
        with self._leased(record.id) as (keeper, lost):
            self._attempt(record, epoch, lost, keeper)
        return self._store.get(record.id)

    def resume(self, migration_id: str) -> MigrationRecord:
        """Go on with a migration that was interrupted or failed; as `run`."""
        return self.run(migration_id)

    def interrupt(self, migration_id: str = "") -> None:
        """Stop in order what runs and will run, or only one that runs now.

        Safe in a signal handler; idempotent.
        """
        if not migration_id:
            self._stop.set()
        for own, context in list(self._running.items()):
            if migration_id in ("", own):
                context.stop.set()

    @contextmanager
    def held(self, *clouds: str) -> Iterator[None]:
        """Keep these clouds and durable execution open between migrations."""
        with ExitStack() as stack:
            for name in clouds:
                stack.enter_context(self._shared_clouds.held(name))
            stack.enter_context(self._shared_engine.held(str(self._holder)))
            yield

    @contextmanager
    def cloud(self, name: str) -> Iterator[Cloud]:
        """The cloud of that name, shared with what runs."""
        with self._shared_clouds.held(name) as cloud:
            yield cloud

    def cancel(self, migration_id: str) -> MigrationRecord:
        """End a migration for good and remove everything it made.

        A migration that another process drives is asked to stop, and waited for.
        """
        record = self._store.get(migration_id)
        if State(record.state).final:
            raise PreconditionError(
                "MIGRATION_ENDED",
                f"migration {record.id} has ended already ({record.state})",
                migration=record.id,
            )
        if self._store.driven(record.id):
            return Asking(self._store, self._stop).cancel(record.id)
        epoch = self._store.acquire(record.id, self._holder)
        with self._leased(record.id) as (keeper, lost):
            with self._clouds(record.spec) as (source, destination):
                context = self._make_context(record.id, epoch, record.spec, source, destination)
                self._fence(context, keeper, lost)
                left = plan.undo(context, resumable=False)
            if left:
                raise BusyError("LEFTOVERS", "not all could be removed: " + "; ".join(left))
            context.written(self._results.cancel(record.id, epoch))
        return self._store.get(record.id)

    def digest(self, path: str) -> str:
        """The root digest of a file or device of this machine, `blake3:<hex>`."""
        return digest_path(self._store, self._dial, path, self._stop)

    def cleanup(
        self, clouds: Sequence[str], *, dry_run: bool
    ) -> tuple[list[CleanupItem], list[BlockferryError]]:
        """Remove what migrations that nobody drives have left in `clouds`, and their keys.

        Returns:
            What was found; and why a cloud could not be looked through, for each such.
        """
        items: list[CleanupItem] = []
        errors: list[BlockferryError] = []
        seen: list[str] = []
        silence = Silence(self._store, self._dial)
        for name in clouds:
            try:
                with closing(self._connect(name)) as cloud:
                    items += clean(self._store, cloud, silence, dry_run=dry_run)
                seen.append(name)
            except BlockferryError as error:
                errors.append(error)
        pairs = end_pairs(self._store, seen, items, dry_run=dry_run)
        items += clean_keys(self._store, silence, self._seal, seen, items, dry_run=dry_run)
        items += pairs
        return items, errors

    def _attempt(
        self, record: MigrationRecord, epoch: int, lost: threading.Event, keeper: LeaseKeeper
    ) -> None:
        own, start = record.id, time.monotonic()
        note_silent_end(self._store, record, epoch)
        if not self._store.set_state(own, State.RUNNING, epoch=epoch):
            lost.set()
        try:
            with ExitStack() as stack:
                source, destination = stack.enter_context(self._clouds(record.spec))
                context = self._make_context(own, epoch, record.spec, source, destination)
                # A lost attempt undoes nothing, and another here wants these agents to come to it.
                stack.callback(close_exchange, context)
                self._fence(context, keeper, lost)
                self._take_pair(context, record)
                context.progress = record.progress
                self._running[own] = context
                if self._stop.is_set():
                    context.stop.set()

                def attempt(_id: str, _epoch: int, run_step: StepRunner) -> None:
                    plan.run(context, run_step)

                engine = stack.enter_context(self._engine(record.spec))
                engine.run(own, epoch, attempt)
        except BlockferryError as error:
            # While the database is away, what it ended of is still what it ended of.
            with suppress(*AWAY):
                self._results.fail(own, epoch, error, time.monotonic() - start)
            raise
        except AWAY as error:
            ours = explain(error)
            # It may be back by now. If not, the lease expires, and whoever resumes it finds all
            # as it is.
            with suppress(*AWAY):
                self._results.fail(own, epoch, ours, time.monotonic() - start)
            raise ours from error
        except Exception as error:
            defect = InternalError("UNEXPECTED", f"a defect of Blockferry: {error!r}")
            with suppress(*AWAY):
                self._results.fail(own, epoch, defect, time.monotonic() - start)
            raise
        finally:
            self._running.pop(own, None)
        self._results.succeed(own, epoch, time.monotonic() - start)

    def _fence(self, context: Context, keeper: LeaseKeeper, lost: threading.Event) -> None:
        """Before anything is touched: have it know whether it still may."""
        context.renew_lease = lambda: self._holds(context.migration_id)
        context.lapsed = lambda: keeper.lapsed
        context.lost = lost
        context.fence()

    def _take_pair(self, context: Context, record: MigrationRecord) -> None:
        """Where the migration is to have one of a pool's."""
        if record.spec.pool is None or HANDING_OVER in record.facts:
            return
        held = context.shared
        if held is not None and not LaneKeys(self._store).have(held.held.id):
            # Its agents listen to another host only, and may still be at work.
            pool.give_up(context, held)
        taken = pool.take(self._store, record, context.epoch, self.new_id)
        if taken is None:
            context.lost.set()
            context.check()
        else:
            # One that it had before may still be at work for it.
            before = held is not None and held.held.id == taken.id
            context.shared = SharedPair(taken, touched=before)

    def end_pair(self, pair_id: str) -> bool:
        """Delete a pair of a fleet in which no migration is that anybody drives.

        Returns:
            Whether nothing is left of it; False: somebody has come to it since.

        Raises:
            BlockferryError: why not.
        """
        pair = self._store.pairs.find(pair_id)
        if pair is None or pair.state is PairState.ENDED:
            return True
        if any(self._store.driven(lane.migration_id) for lane in pair.guests):
            return False
        with ExitStack() as stack:
            names = (pair.source, pair.destination)
            clouds = [stack.enter_context(self._shared_clouds.held(name)) for name in names]
            return pool.demolish(self._store, pair, clouds)

    def speak_to_pair(self, pair_id: str) -> None:
        """Let the instances of a fleet's free pair know that they are wanted.

        Raises:
            BlockferryError: they do not hear it from here.
        """
        pair = self._store.pairs.find(pair_id)
        if pair is not None and pair.state is PairState.FREE:
            speak_to(self._store, self._dial, pair)

    def _holds(self, migration_id: str) -> bool:
        """Asked before each step: of a lease that has just been renewed, reading is enough."""
        store, holder = self._store, self._holder
        return store.holds(migration_id, holder) or store.renew(migration_id, holder)

    @contextmanager
    def _leased(self, migration_id: str) -> Iterator[tuple[LeaseKeeper, threading.Event]]:
        """Keep the lease that was just taken, and give it back; what is set when it is lost."""
        lost = threading.Event()
        keeper = LeaseKeeper(lambda: self._store.renew(migration_id, self._holder), lost.set)
        with closing(keeper):
            try:
                yield keeper, lost
            finally:
                # One that is not given back expires.
                with suppress(*AWAY):
                    self._store.release(migration_id, self._holder)

    def _make_context(
        self, migration_id: str, epoch: int, spec: Spec, source: Cloud, destination: Cloud
    ) -> Context:
        held = self._store.pairs.held_by(migration_id)
        return Context(
            migration_id=migration_id,
            epoch=epoch,
            spec=spec,
            source=Side(Role.SOURCE, source, spec.source),
            destination=Side(Role.SINK, destination, spec.destination),
            store=self._store,
            listener=self._listener,
            dial=self._dial,
            exchanges=self._exchanges,
            shared=None if held is None else SharedPair(held, touched=True),
        )

    @contextmanager
    def _engine(self, spec: Spec) -> Iterator[Engine]:
        if spec.kind is Kind.COPY:
            yield PlainEngine()
            return
        with self._shared_engine.held(str(self._holder)) as engine:
            yield engine

    @contextmanager
    def _clouds(self, spec: Spec) -> Iterator[tuple[Cloud, Cloud]]:
        with ExitStack() as stack:
            source = stack.enter_context(self._shared_clouds.held(spec.source.cloud))
            destination = stack.enter_context(self._shared_clouds.held(spec.destination.cloud))
            yield source, destination


def launch_durable(store: StateStore, executor_id: str) -> Engine:
    """Durable execution on the state database, for what outlives this process."""
    # Half of what a process imports: a copy on this machine does without.
    from blockferry_controller.engine.durable import DurableEngine  # noqa: PLC0415

    return DurableEngine(store.database, executor_id)


def _label(endpoint: Endpoint) -> str:
    return endpoint.volume if endpoint.cloud == "local" else f"{endpoint.cloud}/{endpoint.volume}"
