"""The state database: what is known of every migration, whoever drives it.

One SQLAlchemy URL holds these tables and DBOS's. All calls are short
transactions and may come from any thread. Times are UTC.
"""

from collections.abc import Mapping
from datetime import datetime, timezone
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import sqlalchemy as sa
from msgspec.structs import asdict
from sqlalchemy.engine import Connection, Engine

from blockferry.errors import BusyError, NotFoundError, PreconditionError
from blockferry_controller.engine import tables as t
from blockferry_controller.engine.database import open_database
from blockferry_controller.engine.history import History, note_migration
from blockferry_controller.engine.lease import LEASE_SECONDS, Holder, alive, expiry, now
from blockferry_controller.engine.listing import Listing, named
from blockferry_controller.engine.locks import patient
from blockferry_controller.engine.manifests import Manifests
from blockferry_controller.engine.migration_notes import note_state, note_step
from blockferry_controller.engine.occurrences import Created
from blockferry_controller.engine.pairs import Pairs
from blockferry_controller.engine.records import MigrationRecord, State
from blockferry_controller.engine.requests import Requests, forget_requests, read_wants
from blockferry_controller.engine.rows import (
    change_migration,
    lease_of,
    legible,
    migration_of,
    object_of,
    steps_of,
)
from blockferry_controller.events import Progress
from blockferry_controller.spec import Spec

if TYPE_CHECKING:
    from blockferry_controller.engine.crew import Crew
    from blockferry_controller.engine.deliveries import Deliveries
    from blockferry_controller.engine.fleet_listing import FleetListing
    from blockferry_controller.engine.fleets import Fleets
    from blockferry_controller.engine.outcomes import Outcomes


class StateStore:
    """Reads and writes of the state database. Thread-safe."""

    def __init__(self, engine: Engine, url: str, directory: Path) -> None:
        self._engine = engine
        self.url: Final = url
        self.directory: Final = directory
        self.requests: Final = Requests(engine)
        """What people want of migrations, from any process."""
        self.manifests: Final = Manifests(engine)
        """What their sinks hold."""
        self.history: Final = History(engine)
        """What has happened to migrations and fleets."""
        self.listing: Final = Listing(engine)
        """Many migrations at once."""
        self.pairs: Final = Pairs(engine)
        """Pairs of instances that serve one volume of a fleet after another."""

    @classmethod
    def open(cls, url: str, *, directory: Path | None = None) -> "StateStore":
        """Open, creating file and tables where there are none.

        Args:
            url: SQLAlchemy URL, for example `sqlite:////var/lib/blockferry/state.db`.
            directory: Where files that belong to the state go (keys of running
                migrations, local agents); default: beside an SQLite file.

        Raises:
            UsageError, UnreachableError, PreconditionError: see open_database.
        """
        engine, beside = open_database(url, directory)
        return cls(engine, url, beside)

    @property
    def database(self) -> Engine:
        """The database itself, for durable execution to keep its tables in."""
        return self._engine

    def close(self) -> None:
        """Release connections. Idempotent."""
        self._engine.dispose()

    # --- fleets, of which a single migration needs and loads nothing ------------------

    @cached_property
    def fleets(self) -> "Fleets":
        """Fleets, and their volumes."""
        from blockferry_controller.engine.fleets import Fleets  # noqa: PLC0415

        return Fleets(self._engine)

    @cached_property
    def fleet_listing(self) -> "FleetListing":
        """Many of them at once."""
        from blockferry_controller.engine.fleet_listing import FleetListing  # noqa: PLC0415

        return FleetListing(self._engine)

    @cached_property
    def deliveries(self) -> "Deliveries":
        """How far hooks have been told of what happened."""
        from blockferry_controller.engine.deliveries import Deliveries  # noqa: PLC0415

        return Deliveries(self._engine)

    @cached_property
    def outcomes(self) -> "Outcomes":
        """What became of all volumes of a fleet."""
        from blockferry_controller.engine.outcomes import Outcomes  # noqa: PLC0415

        return Outcomes(self._engine)

    @cached_property
    def crew(self) -> "Crew":
        """The processes that move them."""
        from blockferry_controller.engine.crew import Crew  # noqa: PLC0415

        return Crew(self._engine)

    # --- migrations -----------------------------------------------------------------

    @patient
    def create(self, migration_id: str, spec: Spec, source: str, destination: str) -> None:
        """Remember a new migration as PENDING."""
        at = _now()
        with self._engine.begin() as connection:
            connection.execute(
                t.migrations.insert().values(
                    id=migration_id, kind=spec.kind.value, state=State.PENDING.value,
                    spec=spec.to_json(), source=source, destination=destination, size_bytes=0,
                    epoch=0, request="", facts={}, message="", created_at=at, updated_at=at,
                )
            )  # fmt: skip
            note_migration(connection, migration_id, Created())

    def get(self, reference: str) -> MigrationRecord:
        """The migration with this id, or whose id alone begins with it.

        Raises:
            NotFoundError: MIGRATION_NOT_FOUND.
            PreconditionError: MIGRATION_AMBIGUOUS, several begin so.
        """
        with self._engine.connect() as connection:
            with legible():
                rows = named(connection, reference)
            if not rows:
                raise NotFoundError(
                    "MIGRATION_NOT_FOUND",
                    f"no migration {reference}; `blockferry list` shows those there are",
                    migration=reference,
                )
            if len(rows) > 1:
                raise PreconditionError(
                    "MIGRATION_AMBIGUOUS",
                    f"several migrations begin with {reference}: give more of the id",
                    migration=reference,
                )
            with legible():
                own = rows[0]["id"]
                return migration_of(rows[0], steps_of(connection, own), read_wants(connection, own))

    def knows(self, migration_id: str) -> bool:
        """Whether there is a migration of exactly this id."""
        with self._engine.connect() as connection:
            return _exists(connection, migration_id)

    def is_taken(self, own: str) -> bool:
        """Whether something has this id, or will: a migration, a volume of a fleet, a pair."""
        claimed = (
            t.migrations.c.id == own,
            t.fleet_items.c.migration_id == own,
            t.pairs.c.id == own,
        )
        with self._engine.connect() as connection:
            return any(connection.scalar(sa.select(sa.exists().where(one))) for one in claimed)

    @patient
    def set_state(
        self,
        migration_id: str,
        state: State,
        *,
        message: str = "",
        error: Mapping[str, Any] | None = None,
        result: Mapping[str, Any] | None = None,
        epoch: int | None = None,
    ) -> bool:
        """Move to `state`; what explains the former one is replaced.

        Args:
            migration_id: Which one.
            state: Its new state.
            message: For people.
            error: Reason, message, metadata and exit code of what ended it.
            result: What the command prints as JSON; None leaves the former one.
            epoch: Of the attempt that says so; None: somebody who does not drive it.

        Returns:
            False, and nothing is written, when another attempt has begun since.
        """
        at = _now()
        values: dict[str, object] = {
            "state": state.value, "message": message, "error": error,
            "ended_at": at if state.over else None,
        }  # fmt: skip
        if result is not None:
            values["result"] = result
        with self._engine.begin() as connection:
            written = bool(
                connection.execute(change_migration(migration_id, epoch, **values)).rowcount
            )
            if written:
                note_state(connection, migration_id, state, error, message)
            return written

    def set_size(self, migration_id: str, size_bytes: int) -> None:
        """Remember the source's size."""
        self._update(migration_id, size_bytes=size_bytes)

    def set_facts(self, migration_id: str, epoch: int | None = None, /, **facts: object) -> bool:
        """Add or replace facts by name; values are plain JSON.

        Of what is no migration, as a digest of a local file, nothing is kept.

        Args:
            migration_id: Which one.
            epoch: Of the attempt that has found them; None: somebody else.
            facts: By name.

        Returns:
            False, and nothing is written, when another attempt has begun since.
        """
        with self._engine.begin() as connection:
            # Written before it is read: SQLite has no locks of rows, only one that the first
            # write takes, and both sides of a migration remember at the same time.
            mine = change_migration(migration_id, epoch).returning(t.migrations.c.facts)
            known = connection.execute(mine).scalar_one_or_none()
            if known is None:
                return not _exists(connection, migration_id)
            connection.execute(change_migration(migration_id, facts={**known, **facts}))
            return True

    def facts(self, migration_id: str) -> Mapping[str, Any]:
        """All facts by name; none of what is no migration."""
        query = sa.select(t.migrations.c.facts).where(t.migrations.c.id == migration_id)
        with self._engine.connect() as connection, legible():
            return object_of(connection.execute(query).scalar_one_or_none() or {})

    def save_progress(
        self, migration_id: str, progress: Progress, epoch: int | None = None
    ) -> bool:
        """Replace the progress; False, and nothing, when another attempt than `epoch` has begun."""
        with self._engine.begin() as connection:
            if not connection.execute(change_migration(migration_id, epoch)).rowcount:
                return False
            connection.execute(t.progress.delete().where(t.progress.c.migration_id == migration_id))
            connection.execute(
                t.progress.insert().values(migration_id=migration_id, progress=asdict(progress))
            )
            return True

    @patient
    def add_step(
        self, migration_id: str, epoch: int, name: str, seconds: float, detail: str
    ) -> bool:
        """Append a finished step to its attempt; False, and nothing, when it is not the newest."""
        with self._engine.begin() as connection:
            if not connection.execute(change_migration(migration_id, epoch)).rowcount:
                return False
            mine = (t.steps.c.migration_id == migration_id) & (t.steps.c.epoch == epoch)
            position = sa.select(sa.func.count()).select_from(t.steps).where(mine)
            connection.execute(
                t.steps.insert().values(
                    migration_id=migration_id, epoch=epoch, position=position.scalar_subquery(),
                    name=name, seconds=seconds, detail=detail,
                )
            )  # fmt: skip
            note_step(connection, migration_id, epoch, name, seconds)
            return True

    # --- leases ---------------------------------------------------------------------

    @patient
    def acquire(self, migration_id: str, holder: Holder) -> int:
        """Take the lease and raise the epoch.

        Returns:
            The new epoch, 1 for the first attempt.

        Raises:
            BusyError: MIGRATION_BUSY, a live process holds it.
            PreconditionError: MIGRATION_ENDED, it succeeded or was cancelled.
            NotFoundError: MIGRATION_NOT_FOUND.
        """
        self.get(migration_id)
        with self._engine.begin() as connection:
            # The write comes first: it takes the row (PostgreSQL) or the
            # database (SQLite), so that of two at once one waits and then sees.
            connection.execute(
                t.migrations.update()
                .where(t.migrations.c.id == migration_id)
                .values(epoch=t.migrations.c.epoch + 1)
            )
            current = lease_of(connection, migration_id)
            if current is not None and current["holder"] != str(holder) and alive(current):
                raise BusyError(
                    "MIGRATION_BUSY",
                    f"migration {migration_id} is driven by another process "
                    f"({Holder.parse(current['holder']).words}); wait for it, or cancel it with "
                    f"`blockferry cancel {migration_id}`",
                    migration=migration_id,
                )
            connection.execute(t.leases.delete().where(t.leases.c.migration_id == migration_id))
            connection.execute(
                t.leases.insert().values(
                    migration_id=migration_id, holder=str(holder),
                    expires_at=expiry(),
                )
            )  # fmt: skip
            forget_requests(connection, migration_id)
            columns = t.migrations.c.epoch, t.migrations.c.state
            query = sa.select(*columns).where(t.migrations.c.id == migration_id)
            epoch, state = connection.execute(query).one()
            # Looked at here, and not before only: who was cut off in between must not begin
            # again what others have brought to its end meanwhile.
            if State(state).final:
                raise PreconditionError(
                    "MIGRATION_ENDED",
                    f"migration {migration_id} has ended already ({state})",
                    migration=migration_id,
                )
            return int(epoch)

    def renew(self, migration_id: str, holder: Holder) -> bool:
        """Prolong the lease; False when it is no longer `holder`'s."""
        mine = (t.leases.c.migration_id == migration_id) & (t.leases.c.holder == str(holder))
        with self._engine.begin() as connection:
            changed = connection.execute(t.leases.update().where(mine).values(expires_at=expiry()))
            return changed.rowcount == 1

    def holds(self, migration_id: str, holder: Holder) -> bool:
        """Whether the lease is `holder`'s, for half of its time at least; nothing is written."""
        mine = (t.leases.c.migration_id == migration_id) & (t.leases.c.holder == str(holder))
        fresh = t.leases.c.expires_at > now() + LEASE_SECONDS / 2
        query = sa.select(t.leases.c.migration_id).where(mine & fresh)
        with self._engine.connect() as connection:
            return connection.execute(query).first() is not None

    def release(self, migration_id: str, holder: Holder) -> None:
        """Give the lease back. Idempotent."""
        mine = (t.leases.c.migration_id == migration_id) & (t.leases.c.holder == str(holder))
        with self._engine.begin() as connection:
            connection.execute(t.leases.delete().where(mine))

    def driven(self, migration_id: str) -> bool:
        """Whether a live process holds the lease."""
        with self._engine.connect() as connection:
            lease = lease_of(connection, migration_id)
            return lease is not None and alive(lease)

    # --- reports --------------------------------------------------------------------

    def keep_report(self, migration_id: str, report: Mapping[str, Any]) -> None:
        """Keep the signed report, in place of an earlier one."""
        with self._engine.begin() as connection:
            connection.execute(t.reports.delete().where(t.reports.c.migration_id == migration_id))
            connection.execute(
                t.reports.insert().values(migration_id=migration_id, report=dict(report))
            )

    def kept_report(self, migration_id: str) -> dict[str, Any] | None:
        """The signed report, word for word; None when there is none."""
        with self._engine.connect() as connection:
            query = sa.select(t.reports.c.report).where(t.reports.c.migration_id == migration_id)
            report: dict[str, Any] | None = connection.execute(query).scalar_one_or_none()
            return report

    def _update(self, migration_id: str, **values: object) -> None:
        with self._engine.begin() as connection:
            connection.execute(change_migration(migration_id, None, **values))


def _exists(connection: Connection, migration_id: str) -> bool:
    query = sa.select(t.migrations.c.id).where(t.migrations.c.id == migration_id)
    return connection.execute(query).first() is not None


def _now() -> datetime:
    return datetime.now(timezone.utc)
