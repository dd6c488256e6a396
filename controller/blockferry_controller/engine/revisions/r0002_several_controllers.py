"""Several controllers: who moves which volume. A history, and hooks that are told of it."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Items have a holder and the fleet's version of their last change; holders are listed."""
    op.create_table(
        "blockferry_workers",
        sa.Column("holder", sa.String(length=200), nullable=False),
        sa.Column("room", sa.Integer(), nullable=False),
        sa.Column("expires_at", sa.Float(), nullable=False),
        sa.PrimaryKeyConstraint("holder"),
    )
    items = "blockferry_fleet_items"
    op.add_column(items, sa.Column("holder", sa.Text(), nullable=False, server_default=""))
    op.add_column(items, sa.Column("changed", sa.Integer(), nullable=False, server_default="0"))
    _history()
    for name, table, columns in INDEXES:
        op.create_index(name, table, columns.split())


def _history() -> None:
    op.create_table(
        "blockferry_history",
        sa.Column("number", sa.BigInteger().with_variant(sa.Integer, "sqlite"), primary_key=True),
        sa.Column("id", sa.String(32), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("fleet_id", sa.String(40), nullable=False),
        sa.Column("migration_id", sa.String(40), nullable=False),
        sa.Column("position", sa.Integer()),
        sa.Column("event", sa.String(24), nullable=False),
        sa.Column("data", sa.JSON(), nullable=False),
    )
    fleet = sa.ForeignKey("blockferry_fleets.id", ondelete="CASCADE")
    op.create_table(
        "blockferry_hooks",
        sa.Column("fleet_id", sa.String(40), fleet, primary_key=True),
        sa.Column("hook", sa.String(40), primary_key=True),
        sa.Column("reached", sa.BigInteger(), nullable=False),
        sa.Column("delivered", sa.Integer(), nullable=False),
        sa.Column("given_up", sa.Integer(), nullable=False),
        sa.Column("error", sa.Text(), nullable=False),
        sa.Column("lost", sa.JSON(), nullable=False),
        sa.Column("holder", sa.Text(), nullable=False),
        sa.Column("expires_at", sa.Float(), nullable=False),
    )


INDEXES = (
    ("ix_blockferry_migrations_age", "blockferry_migrations", "created_at id"),
    ("ix_blockferry_items_state", "blockferry_fleet_items", "fleet_id state position"),
    ("ix_blockferry_items_moving", "blockferry_fleet_items", "state"),
    ("ix_blockferry_items_wave", "blockferry_fleet_items", "fleet_id wave state"),
    ("ix_blockferry_history_at", "blockferry_history", "at number"),
    ("ix_blockferry_history_fleet", "blockferry_history", "fleet_id at number"),
    ("ix_blockferry_history_order", "blockferry_history", "fleet_id number"),
    ("ix_blockferry_history_one", "blockferry_history", "migration_id fleet_id number"),
)
