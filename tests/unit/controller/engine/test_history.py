"""What is written down of migrations and fleets, when, and how much of it is kept."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from msgspec.structs import replace

from blockferry.errors import BusyError
from blockferry_controller.engine import history
from blockferry_controller.engine.fleet_records import ItemRecord, ItemState
from blockferry_controller.engine.history import Entry
from blockferry_controller.engine.lease import Holder
from blockferry_controller.engine.records import State
from blockferry_controller.engine.state import StateStore
from blockferry_controller.spec import Endpoint, Kind, Spec

SPEC = Spec(Kind.MIGRATE, Endpoint("east", "v"), Endpoint("west", "v"))
ME = Holder("here", 1, "1", "me")


@pytest.fixture
def store(tmp_path: Path) -> Iterator[StateStore]:
    store = StateStore.open(f"sqlite:///{tmp_path}/state.db")
    yield store
    store.close()


def begin(store: StateStore, own: str = "m-1") -> int:
    if own not in [one.id for one in store.listing.migrations()]:
        store.create(own, SPEC, "east/v", "west/v")
    epoch = store.acquire(own, ME)
    store.set_state(own, State.RUNNING)
    return epoch


def told(store: StateStore, **of: str) -> list[Entry]:
    return list(store.history.newest(**of))[::-1]  # type: ignore[arg-type]


def words(store: StateStore, **of: str) -> list[str]:
    return [entry.event for entry in told(store, **of)]


def test_the_way_of_a_migration(store: StateStore) -> None:
    epoch = begin(store)
    store.set_state("m-1", State.PAUSED)
    store.set_state("m-1", State.RUNNING)
    store.add_step("m-1", epoch, "preflight", 1.0, "")
    store.add_step("m-1", epoch, "copy", 61.23456, "")
    store.set_facts("m-1", digest="blake3:aa", verified=True)
    store.add_step("m-1", epoch, "proof", 3.0, "")
    store.set_state("m-1", State.SUCCEEDED)
    found = [(entry.event, dict(entry.data)) for entry in told(store, migration="m-1")]
    assert found == [
        ("created", {}),
        ("started", {"attempt": 1}),
        ("paused", {"attempt": 1}),
        ("resumed", {"attempt": 1}),
        ("copied", {"attempt": 1, "seconds": 61.235}),
        ("verified", {"attempt": 1, "digest": "blake3:aa"}),
        ("ended", {"state": "SUCCEEDED", "reason": "", "message": ""}),
    ]


def test_an_attempt_after_a_pause_that_its_controller_did_not_survive_is_another(
    store: StateStore,
) -> None:
    begin(store)
    store.set_state("m-1", State.PAUSED)
    store.release("m-1", ME)
    begin(store)
    assert words(store) == ["created", "started", "paused", "started"]


def test_what_was_not_read_back_is_not_verified(store: StateStore) -> None:
    epoch = begin(store)
    store.set_facts("m-1", digest="blake3:aa", verified=False)
    store.add_step("m-1", epoch, "proof", 3.0, "")
    assert "verified" not in words(store)


def test_a_failure_has_its_reason(store: StateStore) -> None:
    begin(store)
    store.set_state("m-1", State.FAILED, message="is broken", error={"reason": "VOLUME_STATE"})
    last = next(store.history.newest())
    assert dict(last.data) == {
        "state": "FAILED", "reason": "VOLUME_STATE", "message": "is broken",
    }  # fmt: skip


def test_of_what_is_no_migration_nothing_is_written(store: StateStore) -> None:
    store.set_state("digest", State.FAILED, message="no such file")
    assert not told(store)


def volume(position: int, wave: str = "all", **fields: object) -> ItemRecord:
    state = ItemState.WAITING
    one = ItemRecord(position, f"v-{position}", f"db-{position}", 5 << 30, wave, state, {})
    return replace(one, **fields)


def found(store: StateStore, *items: ItemRecord) -> None:
    store.fleets.create("shop", ("east", "west"), {}, {}, items)


def test_a_volumes_events_are_its_migrations_and_its_own(store: StateStore) -> None:
    found(store, volume(0, migration_id="m-1"), volume(1))
    store.fleets.acquire("shop", ME)
    store.fleets.change("shop", ME, 0, ItemState.WAITING, state=ItemState.RUNNING)
    begin(store)
    store.fleets.change(
        "shop",
        ME,
        0,
        ItemState.RUNNING,
        state=ItemState.FAILED,
        why="GONE",
        reason="is gone",
        attempts=1,
    )
    store.fleets.put("shop", [0], ItemState.WAITING, [ItemState.FAILED])
    of_fleet = [(one.event, one.name, one.wave) for one in told(store, fleet="shop")]
    assert of_fleet == [
        ("planned", "", ""),
        ("created", "db-0", "all"),
        ("started", "db-0", "all"),
        ("failed", "db-0", "all"),
        ("requeued", "db-0", "all"),
    ]
    assert words(store, migration="m-1") == [word for word, *_ in of_fleet[1:]]


def test_a_wave_is_done_with_the_last_of_it(store: StateStore) -> None:
    found(store, volume(0, "a"), volume(1, "a"), volume(2, "b"))
    store.fleets.acquire("shop", ME)
    store.fleets.change("shop", ME, 0, ItemState.WAITING, state=ItemState.SUCCEEDED)
    assert "wave_done" not in words(store)
    store.fleets.put("shop", [1], ItemState.SKIPPED, [ItemState.WAITING], reason="later")
    last = next(store.history.newest())
    assert (last.event, dict(last.data)) == (
        "wave_done", {"wave": "a", "counts": {"SKIPPED": 1, "SUCCEEDED": 1}},
    )  # fmt: skip


def test_what_holds_many_is_told_once_and_again_when_it_holds_again(store: StateStore) -> None:
    found(store, *[volume(at) for at in range(4)])
    gate = ("GATE", "waits for a person")
    limit = ("FLEET_LIMIT", "2 volumes move")
    store.fleets.acquire("shop", ME)
    store.fleets.explain("shop", ME, {0: gate, 1: gate, 2: limit})
    store.fleets.explain("shop", ME, {3: gate})
    assert [dict(one.data) for one in told(store) if one.event == "held"] == [
        {"why": "GATE", "reason": "waits for a person", "volumes": 2}
    ]
    store.fleets.want("shop", "approved:all", True)
    store.fleets.explain("shop", ME, {3: gate})
    assert words(store) == ["planned", "held", "asked", "held"]


def test_a_fleets_end_has_its_counts(store: StateStore) -> None:
    found(store, volume(0, state=ItemState.SUCCEEDED), volume(1, state=ItemState.FAILED))
    store.fleets.set_state("shop", State.RUNNING)
    store.fleets.set_state("shop", State.INTERRUPTED)
    store.fleets.set_state("shop", State.FAILED, "1 of 2 failed")
    assert words(store) == ["planned", "driven", "fleet_stopped", "fleet_done"]
    assert dict(next(store.history.newest()).data) == {
        "state": "FAILED", "message": "1 of 2 failed", "counts": {"FAILED": 1, "SUCCEEDED": 1},
    }  # fmt: skip


def test_what_did_not_happen_is_not_told(store: StateStore) -> None:
    """The row and the change are one transaction."""
    begin(store)
    before = words(store)
    with pytest.raises(BusyError):
        store.acquire("m-1", Holder("elsewhere", 2, "2", "you"))
    assert words(store) == before


def test_the_newest_are_kept(store: StateStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(history, "MOST_OF_ONE", 5)
    found(store, volume(0))
    begin(store)
    for at in range(20):
        store.fleets.want("shop", "limit", at)
        store.set_state("m-1", State.PAUSED if at % 2 else State.RUNNING)
    assert [one.data["value"] for one in told(store, fleet="shop")] == [15, 16, 17, 18, 19]
    assert len(told(store, migration="m-1")) == 5


def test_in_order_after_a_number_and_of_some_kinds(store: StateStore) -> None:
    found(store, volume(0))
    for at in range(4):
        store.fleets.want("shop", "limit", at)
    first = store.history.of_fleet("shop", 0, 2)
    assert [one.event for one in first] == ["planned", "asked"]
    rest = store.history.of_fleet("shop", first[-1].number, 10, ["asked"])
    assert [one.data["value"] for one in rest] == [1, 2, 3]
