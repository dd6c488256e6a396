"""Time that passes for leases, whatever clock says what time it is."""

from blockferry_controller.engine import tables as t
from blockferry_controller.engine.state import StateStore


def age(store: StateStore, seconds: float) -> None:
    """Make every lease in the database as much older."""
    with store.database.begin() as connection:
        for table in (t.leases, t.fleets, t.workers, t.hooks):
            older = table.c.expires_at - seconds
            connection.execute(table.update().values(expires_at=older))
