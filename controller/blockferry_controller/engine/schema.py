"""The tables of a state database brought to the ones that this program knows.

Rules:
* `blockferry_schema` has one row: the number of the newest revision in it. A program that
  knows fewer refuses the database; one that knows more upgrades it, once, in one transaction.
* Alembic brings the revisions and their operations, but not its own version table: that
  would be a second record of the same, which the programs that are out do not read.
* A released revision is never edited. New columns have a server default: the rows are there.
* A database of the right version costs one query: Alembic is not even imported. A new one
  is made of tables.py at once; a test holds that revisions come to the same.
"""

from pathlib import Path
from typing import Final

import sqlalchemy as sa
from sqlalchemy.engine import Connection, Engine

from blockferry.errors import PreconditionError
from blockferry_controller.engine import tables as t

REVISIONS: Final = Path(__file__).parent / "revisions"
_LOCK: Final = 0x626C6F636B  # any number that nobody else uses: "block"


def prepare(engine: Engine) -> None:
    """Make, upgrade or leave alone; several processes may do so at once.

    Raises:
        PreconditionError: STATE_TOO_NEW.
    """
    with engine.connect() as connection:
        if version(connection) == t.SCHEMA_VERSION:
            return
    with engine.begin() as connection:
        # The second waits, and then finds it done.
        if engine.dialect.name == "sqlite":
            connection.exec_driver_sql("BEGIN IMMEDIATE")
        else:
            # However long: tables that others are at the reading of are changed, too.
            connection.exec_driver_sql("SET LOCAL lock_timeout = 0")
            connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_LOCK)))
        found = version(connection)
        if found is None:
            t.metadata.create_all(connection)
            connection.execute(t.schema.insert().values(version=t.SCHEMA_VERSION))
        elif found > t.SCHEMA_VERSION:
            raise PreconditionError(
                "STATE_TOO_NEW",
                f"the state database has schema {found}, this program knows "
                f"{t.SCHEMA_VERSION}: use the newer Blockferry that wrote it",
                version=found,
            )
        else:
            upgrade(connection, found)


def version(connection: Connection) -> int | None:
    """The number of the newest revision in the database; None when it has none."""
    if not sa.inspect(connection).has_table(t.schema.name):
        return None
    found = connection.execute(sa.select(t.schema.c.version)).scalar()
    return None if found is None else int(found)


def upgrade(connection: Connection, found: int) -> None:
    """Apply every revision after number `found`, in the caller's transaction."""
    from alembic.operations import Operations  # noqa: PLC0415 - see the rules
    from alembic.runtime.migration import MigrationContext  # noqa: PLC0415
    from alembic.script import ScriptDirectory  # noqa: PLC0415

    scripts = ScriptDirectory(str(REVISIONS.parent), version_locations=[str(REVISIONS)])
    oldest_first = reversed(list(scripts.walk_revisions()))
    with Operations.context(MigrationContext.configure(connection)):
        for script in oldest_first:
            if int(script.revision) > found:
                script.module.upgrade()
    connection.execute(t.schema.delete())
    connection.execute(t.schema.insert().values(version=t.SCHEMA_VERSION))
