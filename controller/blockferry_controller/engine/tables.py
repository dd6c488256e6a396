"""The tables beside DBOS's own in the state database, and their version.

Only facts that outlive a process are here. What a step created in a cloud is
not: the cloud's own tags say that, and cannot disagree with themselves.
"""

from typing import Final

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    DateTime,
    Float,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
)

SCHEMA_VERSION: Final = 4
"""Number of the newest of `revisions/`: every change of a table is one; see schema.py."""

metadata = MetaData()


def _owner() -> ForeignKey:
    return ForeignKey("blockferry_migrations.id", ondelete="CASCADE")


schema = Table("blockferry_schema", metadata, Column("version", Integer, primary_key=True))

migrations = Table(
    "blockferry_migrations",
    metadata,
    Column("id", String(40), primary_key=True),
    Column("kind", String(16), nullable=False),
    Column("state", String(16), nullable=False, index=True),
    Column("spec", JSON, nullable=False),
    Column("source", Text, nullable=False),
    Column("destination", Text, nullable=False),
    Column("size_bytes", BigInteger, nullable=False),
    # Raised by whoever takes the migration over; agents refuse a lower one.
    Column("epoch", Integer, nullable=False),
    # Always empty: what is asked of a migration has a table of its own. Tables that are
    # there already have it without a default.
    Column("request", String(16), nullable=False),
    Column("facts", JSON, nullable=False),
    Column("message", Text, nullable=False),
    Column("error", JSON),
    Column("result", JSON),
    Column("created_at", DateTime(timezone=True), nullable=False),
    Column("updated_at", DateTime(timezone=True), nullable=False),
    Column("ended_at", DateTime(timezone=True)),
)

leases = Table(
    "blockferry_leases",
    metadata,
    Column("migration_id", String(40), _owner(), primary_key=True),
    Column("holder", Text, nullable=False),
    Column("expires_at", Float, nullable=False),
)

progress = Table(
    "blockferry_progress",
    metadata,
    Column("migration_id", String(40), _owner(), primary_key=True),
    Column("progress", JSON, nullable=False),
)

steps = Table(
    "blockferry_steps",
    metadata,
    Column("migration_id", String(40), _owner(), primary_key=True),
    Column("epoch", Integer, primary_key=True),
    Column("position", Integer, primary_key=True),
    Column("name", String(32), nullable=False),
    Column("seconds", Float, nullable=False),
    Column("detail", Text, nullable=False),
)

# What people want of a migration; see engine/requests.py.
requests = Table(
    "blockferry_requests",
    metadata,
    Column("migration_id", String(40), _owner(), primary_key=True),
    Column("want", String(16), primary_key=True),
    Column("value", JSON, nullable=False),
    Column("asked_at", DateTime(timezone=True), nullable=False),
    Column("answered_at", DateTime(timezone=True)),
    Column("answer", Text, nullable=False),
)

# Signed reports, word for word: their keys are gone.
reports = Table(
    "blockferry_reports",
    metadata,
    Column("migration_id", String(40), _owner(), primary_key=True),
    Column("report", JSON, nullable=False),
)

# The sink's manifest up to the commit point, so that it survives the instance.
manifests = Table(
    "blockferry_manifests",
    metadata,
    Column("migration_id", String(40), _owner(), primary_key=True),
    Column("first_chunk", BigInteger, primary_key=True),
    Column("digests", LargeBinary, nullable=False),
)


def _fleet() -> ForeignKey:
    return ForeignKey("blockferry_fleets.id", ondelete="CASCADE")


# See engine/fleets.py for these three.
fleets = Table(
    "blockferry_fleets",
    metadata,
    Column("id", String(40), primary_key=True),
    Column("state", String(16), nullable=False),
    Column("source", Text, nullable=False),
    Column("destination", Text, nullable=False),
    Column("document", JSON, nullable=False),
    Column("settings", JSON, nullable=False),
    Column("message", Text, nullable=False),
    Column("version", Integer, nullable=False),
    Column("holder", Text, nullable=False, default=""),
    Column("expires_at", Float, nullable=False, default=0.0),
    Column("created_at", DateTime(timezone=True), nullable=False),
    Column("updated_at", DateTime(timezone=True), nullable=False),
    Column("ended_at", DateTime(timezone=True)),
)

fleet_items = Table(
    "blockferry_fleet_items",
    metadata,
    Column("fleet_id", String(40), _fleet(), primary_key=True),
    Column("position", Integer, primary_key=True),
    Column("volume_id", Text, nullable=False),
    Column("name", Text, nullable=False),
    Column("size_bytes", BigInteger, nullable=False),
    Column("wave", String(40), nullable=False),
    Column("state", String(16), nullable=False),
    Column("plan", JSON, nullable=False),
    Column("why", String(64), nullable=False),
    Column("reason", Text, nullable=False),
    # Not a foreign key: it is claimed before the migration is made.
    Column("migration_id", String(40), nullable=False, index=True),
    Column("attempts", Integer, nullable=False),
    Column("not_before", DateTime(timezone=True)),
    Column("begun", Boolean, nullable=False),
    Column("started_at", DateTime(timezone=True)),
    Column("ended_at", DateTime(timezone=True)),
    # Who has taken it; see engine/crew.py.
    Column("holder", Text, nullable=False, default="", server_default=""),
    # The fleet's version as of the last change of this row.
    Column("changed", Integer, nullable=False, default=0, server_default="0"),
)

# See engine/crew.py.
workers = Table(
    "blockferry_workers",
    metadata,
    Column("holder", String(200), primary_key=True),
    Column("room", Integer, nullable=False),
    Column("expires_at", Float, nullable=False),
)

# See engine/pairs.py.
pairs = Table(
    "blockferry_pairs",
    metadata,
    Column("id", String(40), primary_key=True),
    # Not foreign keys: a pair is found again whatever became of its fleet.
    Column("fleet_id", String(40), nullable=False, index=True),
    Column("source", Text, nullable=False),
    Column("destination", Text, nullable=False),
    Column("fit", Text, nullable=False),
    Column("closed", Boolean, nullable=False),
    Column("ended", Boolean, nullable=False),
    Column("booting", String(40), nullable=False),
    Column("facts", JSON, nullable=False),
    Column("made_at", DateTime(timezone=True), nullable=False),
)

lanes = Table(
    "blockferry_lanes",
    metadata,
    Column("pair_id", String(40), primary_key=True),
    Column("number", Integer, primary_key=True, autoincrement=False),
    Column("migration_id", String(40), nullable=False, index=True),
    # The migration's epoch when it took the lane, and the lane's own, which agents know.
    Column("taken_in", Integer, nullable=False),
    Column("epoch", Integer, nullable=False),
    Column("served", Integer, nullable=False),
    Column("condemned", String(80), nullable=False),
    Column("changed_at", DateTime(timezone=True), nullable=False),
)

fleet_wants = Table(
    "blockferry_fleet_wants",
    metadata,
    Column("fleet_id", String(40), _fleet(), primary_key=True),
    Column("want", String(80), primary_key=True),
    Column("value", JSON, nullable=False),
    Column("asked_at", DateTime(timezone=True), nullable=False),
)

# See engine/history.py.
history = Table(
    "blockferry_history",
    metadata,
    # Only an INTEGER is SQLite's own row number.
    Column("number", BigInteger().with_variant(Integer, "sqlite"), primary_key=True),
    Column("id", String(32), nullable=False),
    Column("at", DateTime(timezone=True), nullable=False),
    # Not foreign keys; empty: it is of no fleet, or of no migration.
    Column("fleet_id", String(40), nullable=False),
    Column("migration_id", String(40), nullable=False),
    Column("position", Integer),
    Column("event", String(24), nullable=False),
    Column("data", JSON, nullable=False),
)

# See engine/deliveries.py.
hooks = Table(
    "blockferry_hooks",
    metadata,
    Column("fleet_id", String(40), _fleet(), primary_key=True),
    Column("hook", String(40), primary_key=True),
    Column("reached", BigInteger, nullable=False),
    Column("delivered", Integer, nullable=False),
    Column("given_up", Integer, nullable=False),
    Column("error", Text, nullable=False),
    Column("lost", JSON, nullable=False),
    Column("holder", Text, nullable=False),
    Column("expires_at", Float, nullable=False),
)

# What `list`, `show` and `history` read of 100,000 rows, and no more: see test_listing.py.
INDEXES: Final = (
    Index("ix_blockferry_migrations_age", migrations.c.created_at, migrations.c.id),
    Index("ix_blockferry_items_state", fleet_items.c.fleet_id, fleet_items.c.state,
          fleet_items.c.position),
    Index("ix_blockferry_items_moving", fleet_items.c.state),
    Index("ix_blockferry_items_wave", fleet_items.c.fleet_id, fleet_items.c.wave,
          fleet_items.c.state),
    Index("ix_blockferry_history_at", history.c.at, history.c.number),
    Index("ix_blockferry_history_fleet", history.c.fleet_id, history.c.at, history.c.number),
    Index("ix_blockferry_history_order", history.c.fleet_id, history.c.number),
    Index("ix_blockferry_history_one", history.c.migration_id, history.c.fleet_id,
          history.c.number),
)  # fmt: skip
