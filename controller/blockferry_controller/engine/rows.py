"""Rows of the state database as the records that the program works with."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timezone
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection, RowMapping

from blockferry.errors import PreconditionError
from blockferry_controller.engine import tables as t
from blockferry_controller.engine.lease import alive, held
from blockferry_controller.engine.records import MigrationRecord, State, StepRecord
from blockferry_controller.engine.requests import Wants
from blockferry_controller.events import Progress
from blockferry_controller.spec import Spec


@contextmanager
def legible() -> Iterator[None]:
    """Says so when a row is not as we write it: damaged, or written by another version."""
    try:
        yield
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise PreconditionError(
            "STATE_DAMAGED",
            f"a row of the state database cannot be read ({error!r}): it is damaged, or was "
            "written by another version; restore the database from a backup, or name another "
            "with --state and let `blockferry cleanup` remove what the clouds hold",
        ) from error


def select_migrations() -> sa.Select[Any]:
    """Every migration with its progress and its lease; what `migration_of` takes."""
    return (
        sa.select(
            t.migrations, t.progress.c.progress, t.leases.c.holder, held(t.leases.c.expires_at)
        )
        .outerjoin(t.progress, t.progress.c.migration_id == t.migrations.c.id)
        .outerjoin(t.leases, t.leases.c.migration_id == t.migrations.c.id)
    )


def change_migration(migration_id: str, epoch: int | None = None, **values: object) -> sa.Update:
    """Of a migration; with an epoch, while that is the newest."""
    mine = t.migrations.c.id == migration_id
    if epoch is not None:
        mine &= t.migrations.c.epoch == epoch
    now = datetime.now(timezone.utc)
    return t.migrations.update().where(mine).values(updated_at=now, **values)


def lease_of(connection: Connection, migration_id: str) -> RowMapping | None:
    """The lease on a migration, whether alive or not."""
    query = sa.select(t.leases, held(t.leases.c.expires_at))
    query = query.where(t.leases.c.migration_id == migration_id)
    return connection.execute(query).mappings().one_or_none()


def steps_of(connection: Connection, migration_id: str) -> tuple[StepRecord, ...]:
    """The finished steps of all attempts, in order."""
    query = (
        sa.select(t.steps)
        .where(t.steps.c.migration_id == migration_id)
        .order_by(t.steps.c.epoch, t.steps.c.position)
    )
    return tuple(
        StepRecord(row["epoch"], row["name"], row["seconds"], row["detail"])
        for row in connection.execute(query).mappings()
    )


def migration_of(
    row: RowMapping, steps: tuple[StepRecord, ...] = (), wants: Wants | None = None
) -> MigrationRecord:
    """The record of one row of `select_migrations`; call it within `legible`."""
    state = State(row["state"]).value
    driven = alive(row)
    if state in (State.RUNNING.value, State.PAUSED.value) and not driven:
        state = State.INTERRUPTED.value
    return MigrationRecord(
        id=row["id"], kind=row["kind"], state=state, spec=Spec.from_json(row["spec"]),
        source=row["source"], destination=row["destination"], size_bytes=row["size_bytes"],
        epoch=row["epoch"], created_at=_utc(row["created_at"]), updated_at=_utc(row["updated_at"]),
        ended_at=None if row["ended_at"] is None else _utc(row["ended_at"]),
        progress=Progress(**(row["progress"] or {})), facts=object_of(row["facts"]), steps=steps,
        message=row["message"], error=row["error"] and object_of(row["error"]),
        result=row["result"] and object_of(row["result"]),
        wants=wants or Wants(),
    )  # fmt: skip


def object_of(value: object) -> dict[str, Any]:
    """A column that holds an object; call it within `legible`."""
    if not isinstance(value, dict):
        raise TypeError(f"{type(value).__name__} where an object should be")
    return value


def _utc(moment: datetime) -> datetime:
    """SQLite keeps no time zone; what is stored is always UTC."""
    return moment.replace(tzinfo=timezone.utc) if moment.tzinfo is None else moment
