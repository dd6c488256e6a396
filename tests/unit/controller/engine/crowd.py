"""A state database with many rows of everything that is listed."""

from datetime import datetime, timedelta, timezone
from typing import Any

from blockferry_controller.engine import tables as t
from blockferry_controller.engine.fleet_records import ItemState
from blockferry_controller.engine.state import StateStore
from blockferry_controller.spec import Endpoint, Kind, Spec

BEGUN = datetime(2026, 11, 20, 22, tzinfo=timezone.utc)
_AT_ONCE = 5000
_STATES = [ItemState.SUCCEEDED] * 7 + [ItemState.FAILED, ItemState.WAITING, ItemState.SKIPPED]
FILE = {"fleet": "shop", "from": "east", "to": "west", "select": {"names": "*"}}
_RESULT = {
    "source": "east/v", "destination": "west/v", "size_bytes": 1 << 30, "data_bytes": 1 << 29,
    "zero_bytes": 1 << 29, "resumed_from_bytes": 0, "sent_bytes": 1 << 29, "wire_bytes": 1 << 28,
    "duration_seconds": 60.0, "verified": True, "digest": "blake3:" + "ab" * 32,
    "profile": {"bottleneck": "wire", "stages": {"read": 1.0, "send": 2.0}},
}  # fmt: skip
_PLAN = {
    "type": "ssd",
    "to_type": "premium",
    "by": {"type": "map.type.rules[0]"},
    "note": "x" * 400,
}


def crowd(url: str, count: int) -> StateStore:
    """A store with a fleet of `count` volumes, as many migrations, and an event of each."""
    store = StateStore.open(url)
    store.fleets.create("shop", ("east", "west"), FILE, {}, [])
    for first in range(0, count, _AT_ONCE):
        numbers = range(first, min(count, first + _AT_ONCE))
        with store.database.begin() as connection:
            connection.execute(t.migrations.insert(), [_migration(at) for at in numbers])
            connection.execute(t.progress.insert(), [_progress(at) for at in numbers])
            connection.execute(t.fleet_items.insert(), [_item(at) for at in numbers])
            connection.execute(t.history.insert(), [_event(at) for at in numbers])
    return store


def name(at: int) -> str:
    return f"261120-{at:06d}"


def _migration(at: int) -> dict[str, Any]:
    spec = Spec(Kind.MIGRATE, Endpoint("east", f"v-{at}"), Endpoint("west", f"v-{at}"))
    when = BEGUN + timedelta(seconds=at)
    return {
        "id": name(at), "kind": "migrate", "state": "SUCCEEDED", "spec": spec.to_json(),
        "source": f"east/v-{at}", "destination": f"west/v-{at}", "size_bytes": 1 << 30, "epoch": 1,
        "request": "", "facts": {"destination_volume_id": f"w-{at}"}, "message": "",
        "result": _RESULT, "created_at": when, "updated_at": when,
        "ended_at": when,
    }  # fmt: skip


def _progress(at: int) -> dict[str, Any]:
    return {"migration_id": name(at), "progress": {"committed_bytes": 1 << 30}}


def _item(at: int) -> dict[str, Any]:
    return {
        "fleet_id": "shop", "position": at, "volume_id": f"v-{at}", "name": f"v-{at}",
        "size_bytes": 1 << 30, "wave": f"w{at % 3}", "state": _STATES[at % len(_STATES)].value,
        "plan": _PLAN, "why": "", "reason": "", "migration_id": name(at), "attempts": 0,
        "not_before": None, "begun": True, "started_at": None, "ended_at": None,
    }  # fmt: skip


def _event(at: int) -> dict[str, Any]:
    return {
        "id": f"{at:032x}", "at": BEGUN + timedelta(seconds=at), "fleet_id": "shop",
        "migration_id": name(at), "position": at, "event": "started", "data": {"attempt": 1},
    }  # fmt: skip
