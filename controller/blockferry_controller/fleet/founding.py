"""A plan becomes a fleet in the state database, and is read back from there."""

import json
from collections.abc import Mapping
from typing import Any

from msgspec import to_builtins

from blockferry.errors import PreconditionError
from blockferry_controller.engine.fleet_records import FleetRecord, ItemRecord, ItemState
from blockferry_controller.engine.fleets import Fleets
from blockferry_controller.fleet.decide import REFUSED
from blockferry_controller.fleet.grammar import read_fleet
from blockferry_controller.fleet.plan import Item, Plan, item_from_json, item_to_json
from blockferry_controller.fleet.planning import Settings, spec_of
from blockferry_controller.fleet.spec import Fleet
from blockferry_controller.spec import Placement, Spec, Transfer, Verify


def found(fleets: Fleets, plan: Plan, settings: Settings) -> FleetRecord:
    """Remember the fleet that `plan` describes; nothing is begun.

    Raises:
        PreconditionError: FLEET_EXISTS, FLEET_EMPTY.
    """
    fleet = plan.fleet
    if not plan.items:
        raise PreconditionError(
            "FLEET_EMPTY", f"fleet {fleet.name} selects no volume", fleet=fleet.name
        )
    items = [_record(at, item) for at, item in enumerate(plan.items)]
    route = fleet.source, fleet.destination
    hooks = [hook.name for hook in fleet.hooks]
    kept = dict(to_builtins(settings))
    fleets.create(fleet.name, route, plan.document, kept, items, hooks=hooks)
    return fleets.get(fleet.name)


def fleet_in(record: FleetRecord) -> Fleet:
    """The fleet file that a fleet was made of."""
    return read_fleet(json.dumps(record.document), f"fleet {record.id}")


def order_of(fleet: Fleet, settings: Mapping[str, Any], item: ItemRecord) -> Spec:
    """The migration that moves `item`."""
    return spec_of(fleet, item_from_json(item.plan), _settings_from_json(settings))


def _record(position: int, item: Item) -> ItemRecord:
    state, why, reason = ItemState.WAITING, "", ""
    if item.skip:
        state, reason = ItemState.SKIPPED, item.skip
    elif item.problems:
        state, why, reason = ItemState.FAILED, REFUSED, "; ".join(item.problems)
    return ItemRecord(
        position=position,
        volume_id=item.volume.id,
        name=item.volume.name,
        size_bytes=item.volume.size_bytes,
        wave=item.wave,
        state=state,
        plan=item_to_json(item),
        why=why,
        reason=reason,
    )


def _settings_from_json(data: Mapping[str, Any]) -> Settings:
    transfer = {**data["transfer"], "verify": Verify(data["transfer"]["verify"])}
    return Settings(
        **{
            **data,
            "source": Placement(**data["source"]),
            "destination": Placement(**data["destination"]),
            "transfer": Transfer(**transfer),
        }
    )
