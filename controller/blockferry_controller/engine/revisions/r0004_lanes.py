"""Pairs of instances that serve several volumes side by side."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    """A row more is a lane of a pair. Pairs that are there have none, and end."""
    pairs, lanes = "blockferry_pairs", "blockferry_lanes"
    op.create_table(
        lanes,
        sa.Column("pair_id", sa.String(40), primary_key=True),
        sa.Column("number", sa.Integer(), primary_key=True, autoincrement=False),
        sa.Column("migration_id", sa.String(40), nullable=False),
        sa.Column("taken_in", sa.Integer(), nullable=False),
        sa.Column("epoch", sa.Integer(), nullable=False),
        sa.Column("served", sa.Integer(), nullable=False),
        sa.Column("condemned", sa.String(80), nullable=False),
        sa.Column("changed_at", sa.DateTime(timezone=True), nullable=False),
    )
    op.create_index("ix_blockferry_lanes_migration_id", lanes, ["migration_id"])
    # What its agents trust was made for the pair as a whole: whoever had one takes another,
    # and the next that drives the fleet, or `cleanup`, deletes what it has in the clouds.
    true, false = sa.true(), sa.false()
    op.add_column(pairs, sa.Column("closed", sa.Boolean(), nullable=False, server_default=true))
    op.add_column(pairs, sa.Column("ended", sa.Boolean(), nullable=False, server_default=false))
    op.add_column(pairs, sa.Column("booting", sa.String(40), nullable=False, server_default=""))
    op.execute("UPDATE blockferry_pairs SET ended = (state = 'ENDED')")
    op.drop_index("ix_blockferry_pairs_migration_id", pairs)
    for name in ("state", "migration_id", "taken_in", "epoch", "served", "changed_at"):
        op.drop_column(pairs, name)
