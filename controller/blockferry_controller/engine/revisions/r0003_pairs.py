"""Pairs of instances that serve one volume of a fleet after another."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """A row is a pair, from before it is booted until it is gone."""
    pairs = "blockferry_pairs"
    op.create_table(
        pairs,
        sa.Column("id", sa.String(40), primary_key=True),
        sa.Column("fleet_id", sa.String(40), nullable=False),
        sa.Column("source", sa.Text(), nullable=False),
        sa.Column("destination", sa.Text(), nullable=False),
        sa.Column("fit", sa.Text(), nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("migration_id", sa.String(40), nullable=False),
        sa.Column("taken_in", sa.Integer(), nullable=False),
        sa.Column("epoch", sa.Integer(), nullable=False),
        sa.Column("served", sa.Integer(), nullable=False),
        sa.Column("facts", sa.JSON(), nullable=False),
        sa.Column("made_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("changed_at", sa.DateTime(timezone=True), nullable=False),
    )
    op.create_index("ix_blockferry_pairs_fleet_id", pairs, ["fleet_id"])
    op.create_index("ix_blockferry_pairs_migration_id", pairs, ["migration_id"])
