"""What is written down of a fleet and its volumes, when something of them changes.

Called in the transaction that makes the change; see history.py.
"""

from collections import Counter
from collections.abc import Sequence
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.engine import Connection, RowMapping

from blockferry_controller.engine import tables as t
from blockferry_controller.engine.history import last_of_fleet, note_fleet, note_volume
from blockferry_controller.engine.occurrences import (
    WORDS,
    Asked,
    Cancelled,
    Driven,
    Failed,
    FleetDone,
    FleetStopped,
    Held,
    OfVolume,
    Planned,
    Requeued,
    Skipped,
    Succeeded,
    Waiting,
    WaveDone,
)
from blockferry_controller.engine.records import State

_OPEN: Final = frozenset({"WAITING", "RUNNING"})
"""States of volumes that are not final; ItemState has them all."""
_HOLDS: Final = frozenset({"WINDOW", "GATE", "BREAKER", "PAUSED"})
"""Reasons that hold a fleet, or a wave, and not one volume."""
_OVER: Final = (State.SUCCEEDED, State.FAILED, State.CANCELLED)


def count_items(connection: Connection, fleet_id: str, wave: str | None = None) -> dict[str, int]:
    """Volumes by state, of all waves or one."""
    rows = connection.execute(counts(fleet_id, wave))
    return {str(row[0]): int(row[1]) for row in rows}


def counts(fleet_id: str, wave: str | None) -> sa.Select[Any]:
    """The query behind count_items."""
    items = t.fleet_items.c
    query = sa.select(items.state, sa.func.count()).where(items.fleet_id == fleet_id)
    query = query.group_by(items.state)
    return query if wave is None else query.where(items.wave == wave)


def still_open(fleet_id: str, wave: str) -> sa.Select[Any]:
    """A volume of a wave that is not in a final state, if there is one."""
    items = t.fleet_items.c
    query = sa.select(items.state).where(items.fleet_id == fleet_id, items.wave == wave)
    return query.where(items.state.in_(sorted(_OPEN))).limit(1)


def note_planned(connection: Connection, fleet_id: str, sizes: Sequence[int]) -> None:
    """The fleet was made, of volumes of these sizes."""
    note_fleet(connection, fleet_id, Planned(len(sizes), sum(sizes)))


def note_state(connection: Connection, fleet_id: str, state: State, message: str) -> None:
    """The fleet has moved to `state`."""
    if state is State.RUNNING:
        note_fleet(connection, fleet_id, Driven())
    elif state in _OVER:
        found = count_items(connection, fleet_id)
        note_fleet(connection, fleet_id, FleetDone(state.value, message, found))
    else:
        note_fleet(connection, fleet_id, FleetStopped(state.value, message))


def note_asked(connection: Connection, fleet_id: str, want: str, value: object) -> None:
    """Somebody left word."""
    note_fleet(connection, fleet_id, Asked(want, value))


def note_change(
    connection: Connection, fleet_id: str, position: int, *, asked: bool = False
) -> None:
    """What became of a volume, and of its wave when it was the last of it.

    Args:
        connection: Of the transaction that changed it.
        fleet_id: The fleet.
        position: Of the volume.
        asked: By a person, from outside.
    """
    items = t.fleet_items.c
    query = sa.select(t.fleet_items).where(items.fleet_id == fleet_id, items.position == position)
    row = connection.execute(query).mappings().one()
    what = _of_volume(row, asked=asked)
    if what is None:
        return
    note_volume(connection, row, what)
    # Each volume that ends asks this: it must not cost what the wave is long.
    if connection.execute(still_open(fleet_id, row["wave"])).first() is None:
        found = count_items(connection, fleet_id, row["wave"])
        note_fleet(connection, fleet_id, WaveDone(row["wave"], found))


def _of_volume(row: RowMapping, *, asked: bool) -> OfVolume | None:
    """None: that it moves, its migration's own history says better."""
    given = row["why"], row["reason"], row["attempts"]
    known: dict[str, OfVolume] = {
        "WAITING": Requeued() if asked else Waiting(*given),
        "SUCCEEDED": Succeeded(),
        "FAILED": Failed(*given),
        "CANCELLED": Cancelled(),
        "SKIPPED": Skipped(row["reason"]),
    }
    return known.get(row["state"])


def note_held(connection: Connection, fleet_id: str, reasons: Sequence[tuple[str, str]]) -> None:
    """Volumes wait, of these words and texts: once for what holds many, not each time.

    One who comes to it later, and waits for what was written down last, is told already.
    """
    for (why, text), count in Counter(reasons).items():
        if why not in _HOLDS:
            continue
        last = last_of_fleet(connection, fleet_id)
        if last is None or last[0] != WORDS[Held] or last[1]["reason"] != text:
            note_fleet(connection, fleet_id, Held(why, text, count))
