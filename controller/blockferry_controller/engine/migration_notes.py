"""What is written down of a migration, when something of it changes.

Called in the transaction that makes the change; see history.py.
"""

from collections.abc import Mapping
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from blockferry_controller.engine import tables as t
from blockferry_controller.engine.history import last_event, note_migration
from blockferry_controller.engine.occurrences import (
    WORDS,
    Copied,
    Ended,
    OfMigration,
    Paused,
    Resumed,
    Started,
    Verified,
)
from blockferry_controller.engine.records import State


def note_state(
    connection: Connection,
    migration_id: str,
    state: State,
    error: Mapping[str, Any] | None,
    message: str,
) -> None:
    """It has moved to `state`."""
    if state.over:
        told: OfMigration = Ended(state.value, str((error or {}).get("reason", "")), message)
    else:
        told = _at_work(connection, migration_id, state)
    note_migration(connection, migration_id, told)


def note_step(
    connection: Connection, migration_id: str, epoch: int, name: str, seconds: float
) -> None:
    """A step has ended; most are nothing that anybody waits for."""
    if name == "copy":
        note_migration(connection, migration_id, Copied(epoch, round(seconds, 3)))
    elif name == "proof" and (digest := _proven(connection, migration_id)):
        note_migration(connection, migration_id, Verified(epoch, digest))


def _at_work(connection: Connection, migration_id: str, state: State) -> OfMigration:
    query = sa.select(t.migrations.c.epoch).where(t.migrations.c.id == migration_id)
    attempt = int(connection.execute(query).scalar_one())
    if state is State.PAUSED:
        return Paused(attempt)
    last = last_event(connection, migration_id)
    # A controller that died in a pause leaves another attempt to begin, not one to go on.
    paused = last is not None and last.event == WORDS[Paused] and last.data["attempt"] == attempt
    return Resumed(attempt) if paused else Started(attempt)


def _proven(connection: Connection, migration_id: str) -> str:
    """The root that the medium was read back with; empty when it was not."""
    query = sa.select(t.migrations.c.facts).where(t.migrations.c.id == migration_id)
    facts = connection.execute(query).scalar_one_or_none() or {}
    return str(facts.get("digest", "")) if facts.get("verified") else ""
