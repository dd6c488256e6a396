"""Fleets and their volumes as the state database remembers them, and out of its rows."""

from collections.abc import Mapping
from datetime import datetime, timezone
from enum import Enum
from typing import Any, Final

from msgspec import Struct
from sqlalchemy.engine import RowMapping

from blockferry_controller.engine.lease import alive
from blockferry_controller.engine.records import State


class ItemState(str, Enum):
    """Where a volume of a fleet is."""

    WAITING = "WAITING"
    RUNNING = "RUNNING"
    SUCCEEDED = "SUCCEEDED"
    FAILED = "FAILED"
    CANCELLED = "CANCELLED"
    SKIPPED = "SKIPPED"

    @property
    def final(self) -> bool:
        """Whether the fleet will do nothing more of it, unless somebody asks."""
        return self not in (ItemState.WAITING, ItemState.RUNNING)


class ItemRecord(Struct, frozen=True):
    """One volume of a fleet.

    Attributes:
        position: Its place in the plan; unique in the fleet.
        wave: Name of its wave.
        plan: The plan's item as plain types.
        why: Word for why it waits or what it failed of; empty otherwise.
        reason: The same for people.
        migration_id: Its migration; empty before it was claimed first.
        attempts: How often it was tried in vain, for a reason that counts.
        not_before: It waits at least until then; None for no such time.
        begun: Whether its migration may have made something.
        holder: The process that has taken it (see engine/crew.py); empty for none.
    """

    position: int
    volume_id: str
    name: str
    size_bytes: int
    wave: str
    state: ItemState
    plan: Mapping[str, Any]
    why: str = ""
    reason: str = ""
    migration_id: str = ""
    attempts: int = 0
    not_before: datetime | None = None
    begun: bool = False
    started_at: datetime | None = None
    ended_at: datetime | None = None
    holder: str = ""


class FleetWants(Struct, frozen=True):
    """What people want of a fleet.

    Attributes:
        paused: Nothing new begins, what runs is stopped without loss.
        cancelled: Ended for good.
        limit_bytes_per_second: Replaces the file's budget; None: nobody asked.
        approved: Names of waves.
    """

    paused: bool = False
    cancelled: bool = False
    limit_bytes_per_second: int | None = None
    approved: frozenset[str] = frozenset()


class FleetLine(Struct, frozen=True, kw_only=True):
    """One fleet in a list of many.

    Attributes:
        state: A word of State: RUNNING while a live process drives it, INTERRUPTED when
            none does and something is left to do.
        message: What holds it, or how it ended; may be empty.
        counts: Items by their state.
    """

    id: str
    state: str
    source: str
    destination: str
    created_at: datetime
    updated_at: datetime
    ended_at: datetime | None
    message: str
    counts: Mapping[str, int]


class FleetRecord(FleetLine, frozen=True, kw_only=True):
    """One fleet.

    Attributes:
        document: The fleet file as plain types.
        settings: What the configuration said when it was made.
        version: Grows with every change from outside of whoever drives it.
    """

    document: Mapping[str, Any]
    settings: Mapping[str, Any]
    version: int


_OPEN: Final = (State.PENDING.value, State.RUNNING.value, State.PAUSED.value, State.WAITING.value)


def fleet_of(row: RowMapping, counts: Mapping[str, int]) -> FleetRecord:
    """The fleet of a row with all columns of its table, and its lease."""
    return FleetRecord(
        **_line(row, counts), document=row["document"], settings=row["settings"],
        version=row["version"],
    )  # fmt: skip


def line_of(row: RowMapping, counts: Mapping[str, int]) -> FleetLine:
    """The fleet of a row that has at least the columns of FleetLine and its lease."""
    return FleetLine(**_line(row, counts))


def _line(row: RowMapping, counts: Mapping[str, int]) -> dict[str, Any]:
    state = row["state"]
    driven = alive(row)
    if state in _OPEN and state != State.PENDING.value and not driven:
        state = State.INTERRUPTED.value
    names = ("id", "source", "destination", "message")
    times = {name: _utc(row[name]) for name in ("created_at", "updated_at", "ended_at")}
    return {"state": state, "counts": counts, **{name: row[name] for name in names}, **times}


def item_of(row: RowMapping) -> ItemRecord:
    """The volume of a row of fleet_items."""
    values = dict(row)
    del values["fleet_id"], values["changed"]
    for name in ("not_before", "started_at", "ended_at"):
        values[name] = _utc(values[name])
    return ItemRecord(**{**values, "state": ItemState(row["state"])})


def row_of(fleet_id: str, item: ItemRecord) -> dict[str, Any]:
    """The row of fleet_items for a volume: inverse of item_of."""
    names = ItemRecord.__struct_fields__
    return {"fleet_id": fleet_id, **plain({name: getattr(item, name) for name in names})}


def plain(values: Mapping[str, object]) -> dict[str, Any]:
    """Values as the columns of an item take them."""
    return {key: value.value if isinstance(value, Enum) else value for key, value in values.items()}


def _utc(moment: datetime | None) -> datetime | None:
    """SQLite keeps no time zone; what is stored is always UTC."""
    return moment.replace(tzinfo=timezone.utc) if moment and moment.tzinfo is None else moment
