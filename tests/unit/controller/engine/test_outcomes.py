"""What became of volumes, read for reports: the same from both databases."""

import json
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest

from blockferry_controller.engine import tables as t
from blockferry_controller.engine.outcomes import PAGE, Outcome
from tests.unit.controller.engine.conftest import NewUrl
from tests.unit.controller.engine.crowd import BEGUN, crowd, name


def test_each_volume_has_its_migration_beside_it(
    new_url: NewUrl, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    store = crowd(new_url(), PAGE + 3)
    own = t.fleet_items.c.position
    with store.database.begin() as connection:
        connection.execute(t.fleet_items.update().where(own == 1).values(migration_id=""))
        connection.execute(t.fleet_items.update().where(own == 2).values(ended_at=BEGUN))
        connection.execute(
            t.migrations.update().where(t.migrations.c.id == name(2)).values(facts={}, result=None)
        )
    first, alone, second, *rest = store.outcomes.of("shop")
    store.close()

    assert [one.position for one in rest] == list(range(3, PAGE + 3))
    assert first[:8] == (0, "v-0", "v-0", 1 << 30, "w0", "SUCCEEDED", "", "")
    assert (first.migration_id, first.epoch, first.destination) == (name(0), 1, "w-0")
    assert json.loads(first.plan)["to_type"] == "premium"
    assert json.loads(first.result or "")["wire_bytes"] == 1 << 28
    assert json.loads(first.progress or "") == {"committed_bytes": 1 << 30}
    assert alone == Outcome(*alone[:9], "", None, None)
    assert (second.destination, second.result) == (None, "null")
    assert isinstance(second.ended_at, datetime)
    assert second.ended_at.replace(tzinfo=timezone.utc) == BEGUN


def test_no_such_fleet_has_no_volumes(
    new_url: NewUrl, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    store = crowd(new_url(), 1)
    assert list(store.outcomes.of("else")) == []
    store.close()


def test_a_fact_of_those_that_ended_well_last(
    new_url: NewUrl, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    store = crowd(new_url(), 12)
    items, own = t.fleet_items.c, t.migrations.c
    with store.database.begin() as connection:
        for at in range(12):
            ended = BEGUN + timedelta(minutes=at)
            mine = items.position == at
            connection.execute(t.fleet_items.update().where(mine).values(ended_at=ended))
        # 8 has waited, 7 has failed, 6 knows nothing, 5 of null.
        for at, facts in ((8, {"a": 8}), (7, {"a": 7}), (5, {"a": None}), (4, {"a": {"b": 4}}),
                          (2, {"a": {"b": 2.5}}), (1, {"a": 1})):  # fmt: skip
            mine = own.id == name(at)
            connection.execute(t.migrations.update().where(mine).values(facts=facts))
    assert store.outcomes.recent("shop", "a", 2) == [{"b": 4}, {"b": 2.5}]
    assert store.outcomes.recent("shop", "a", 9) == [{"b": 4}, {"b": 2.5}, 1]
    assert store.outcomes.recent("other", "a", 9) == []
    store.close()
