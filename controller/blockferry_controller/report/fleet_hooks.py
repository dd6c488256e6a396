"""What the hooks of a fleet were told, and what they were not."""

from typing import Any

from blockferry_controller.engine.deliveries import Deliveries
from blockferry_controller.engine.fleet_records import FleetRecord
from blockferry_controller.fleet.founding import fleet_in


def hooks_of(deliveries: Deliveries, record: FleetRecord) -> list[dict[str, Any]]:
    """A row a hook of the fleet file; `waiting`: events that it has not been told yet."""
    rows = []
    for hook in fleet_in(record).hooks:
        standing = deliveries.standing(record.id, hook.name)
        rows.append(
            {
                "hook": hook.name,
                "delivered": standing.delivered,
                "given_up": standing.given_up,
                "waiting": deliveries.waiting(record.id, hook.name, hook.on),
                "error": standing.error,
                "lost": [dict(one) for one in standing.lost],
            }
        )
    return rows
