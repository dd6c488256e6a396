"""What 0.1.0 has."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    """All tables of the first release."""
    op.create_table(
        "blockferry_fleets",
        sa.Column("id", sa.String(length=40), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("source", sa.Text(), nullable=False),
        sa.Column("destination", sa.Text(), nullable=False),
        sa.Column("document", sa.JSON(), nullable=False),
        sa.Column("settings", sa.JSON(), nullable=False),
        sa.Column("message", sa.Text(), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("holder", sa.Text(), nullable=False),
        sa.Column("expires_at", sa.Float(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("ended_at", sa.DateTime(timezone=True), nullable=True),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_table(
        "blockferry_migrations",
        sa.Column("id", sa.String(length=40), nullable=False),
        sa.Column("kind", sa.String(length=16), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("spec", sa.JSON(), nullable=False),
        sa.Column("source", sa.Text(), nullable=False),
        sa.Column("destination", sa.Text(), nullable=False),
        sa.Column("size_bytes", sa.BigInteger(), nullable=False),
        sa.Column("epoch", sa.Integer(), nullable=False),
        sa.Column("request", sa.String(length=16), nullable=False),
        sa.Column("facts", sa.JSON(), nullable=False),
        sa.Column("message", sa.Text(), nullable=False),
        sa.Column("error", sa.JSON(), nullable=True),
        sa.Column("result", sa.JSON(), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("ended_at", sa.DateTime(timezone=True), nullable=True),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index(
        op.f("ix_blockferry_migrations_state"), "blockferry_migrations", ["state"], unique=False
    )
    op.create_table(
        "blockferry_schema",
        sa.Column("version", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("version"),
    )
    op.create_table(
        "blockferry_fleet_items",
        sa.Column("fleet_id", sa.String(length=40), nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.Column("volume_id", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("size_bytes", sa.BigInteger(), nullable=False),
        sa.Column("wave", sa.String(length=40), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("plan", sa.JSON(), nullable=False),
        sa.Column("why", sa.String(length=64), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("migration_id", sa.String(length=40), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("not_before", sa.DateTime(timezone=True), nullable=True),
        sa.Column("begun", sa.Boolean(), nullable=False),
        sa.Column("started_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("ended_at", sa.DateTime(timezone=True), nullable=True),
        sa.ForeignKeyConstraint(["fleet_id"], ["blockferry_fleets.id"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("fleet_id", "position"),
    )
    op.create_index(
        op.f("ix_blockferry_fleet_items_migration_id"),
        "blockferry_fleet_items",
        ["migration_id"],
        unique=False,
    )
    op.create_table(
        "blockferry_fleet_wants",
        sa.Column("fleet_id", sa.String(length=40), nullable=False),
        sa.Column("want", sa.String(length=80), nullable=False),
        sa.Column("value", sa.JSON(), nullable=False),
        sa.Column("asked_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(["fleet_id"], ["blockferry_fleets.id"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("fleet_id", "want"),
    )
    op.create_table(
        "blockferry_leases",
        sa.Column("migration_id", sa.String(length=40), nullable=False),
        sa.Column("holder", sa.Text(), nullable=False),
        sa.Column("expires_at", sa.Float(), nullable=False),
        sa.ForeignKeyConstraint(["migration_id"], ["blockferry_migrations.id"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("migration_id"),
    )
    op.create_table(
        "blockferry_manifests",
        sa.Column("migration_id", sa.String(length=40), nullable=False),
        sa.Column("first_chunk", sa.BigInteger(), nullable=False),
        sa.Column("digests", sa.LargeBinary(), nullable=False),
        sa.ForeignKeyConstraint(["migration_id"], ["blockferry_migrations.id"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("migration_id", "first_chunk"),
    )
    op.create_table(
        "blockferry_progress",
        sa.Column("migration_id", sa.String(length=40), nullable=False),
        sa.Column("progress", sa.JSON(), nullable=False),
        sa.ForeignKeyConstraint(["migration_id"], ["blockferry_migrations.id"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("migration_id"),
    )
    op.create_table(
        "blockferry_reports",
        sa.Column("migration_id", sa.String(length=40), nullable=False),
        sa.Column("report", sa.JSON(), nullable=False),
        sa.ForeignKeyConstraint(["migration_id"], ["blockferry_migrations.id"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("migration_id"),
    )
    op.create_table(
        "blockferry_requests",
        sa.Column("migration_id", sa.String(length=40), nullable=False),
        sa.Column("want", sa.String(length=16), nullable=False),
        sa.Column("value", sa.JSON(), nullable=False),
        sa.Column("asked_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("answered_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("answer", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(["migration_id"], ["blockferry_migrations.id"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("migration_id", "want"),
    )
    op.create_table(
        "blockferry_steps",
        sa.Column("migration_id", sa.String(length=40), nullable=False),
        sa.Column("epoch", sa.Integer(), nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.Column("name", sa.String(length=32), nullable=False),
        sa.Column("seconds", sa.Float(), nullable=False),
        sa.Column("detail", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(["migration_id"], ["blockferry_migrations.id"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("migration_id", "epoch", "position"),
    )
