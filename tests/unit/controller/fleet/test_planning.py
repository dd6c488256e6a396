"""`blockferry plan`: what would be done, and nothing changed."""

import json
from collections import Counter
from typing import Any

import pytest
from msgspec.structs import replace

from blockferry.limits import GIB, MIB
from blockferry_controller.clouds.port import Attachment
from blockferry_controller.fleet.drift import drift
from blockferry_controller.fleet.pace import AROUND_SECONDS, Pace
from blockferry_controller.fleet.plan import read_plan, to_json
from blockferry_controller.fleet.planning import Settings, spec_of
from blockferry_controller.spec import Verify
from tests.unit.controller.fleet.stage import NOW, Stage

READING = {
    "access", "list_volumes", "list_volume_types", "list_volume_zones", "list_flavors",
    "list_images", "list_networks", "quota", "find_volume", "close",
}  # fmt: skip


def test_both_clouds_are_asked_once_and_nothing_is_changed(stage: Stage) -> None:
    for at in range(20):
        stage.east.add_volume(f"v{at}")
    plan = stage.plan()
    assert len(plan.running) == 20
    asked = Counter([*stage.east.verbs, *stage.west.verbs])
    assert asked.keys() <= READING
    assert asked["list_volumes"] == 1
    assert max(asked.values()) <= 2


def test_every_volume_says_what_becomes_of_it_and_by_which_rule(stage: Stage) -> None:
    stage.east.add_volume("db", volume_type="ssd")
    rules = [{"match": "ssd", "to": "fast"}]
    stage.keys = {"map": {"type": {"rules": rules}, "name": {"rules": [
        {"match": "db", "to": "{name}-new"}]}}}  # fmt: skip
    item = stage.item("db")
    assert (item.to_type, item.to_zone, item.to_name) == ("fast", "nova", "db-new")
    assert item.by["type"] == "map.type.rules[0]: ssd -> fast"
    assert item.runs


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"attachments": (Attachment("s", ""),), "status": "in-use"}, "source-state: volume"),
        ({"status": "error"}, "source-state: volume"),
        ({"encrypted": True}, "encryption: volume"),
    ],
    ids=["attached", "in error", "encrypted"],
)
def test_a_volume_that_cannot_be_moved_says_why(
    stage: Stage, change: dict[str, Any], problem: str
) -> None:
    stage.east.add_volume("bad", **change)
    stage.east.add_volume("good")
    assert stage.item("bad").problems[0].startswith(problem)
    assert not stage.item("good").problems


def test_a_type_that_must_be_mapped_and_is_not(stage: Stage) -> None:
    stage.east.add_volume("db")
    stage.keys = {"map": {"type": {"unmapped": "fail"}}}
    assert "no rule of map.type matches standard" in stage.item("db").problems[0]


def test_a_type_that_the_destination_has_not(stage: Stage) -> None:
    stage.east.add_volume("db")
    stage.keys = {"map": {"type": {"rules": [{"match": "*", "to": "gone"}]}}}
    assert stage.item("db").problems[0].startswith("volume-type: There is no volume type gone")


def test_a_volume_of_no_wave_and_one_that_is_skipped(stage: Stage) -> None:
    stage.east.add_volume("a")
    stage.east.add_volume("b")
    waves = [{"name": "first", "select": {"names": "a"}}]
    stage.keys = {"waves": waves, "volumes": {"a": {"skip": "not now"}}}
    assert (stage.item("a").skip, stage.item("a").problems) == ("not now", ())
    assert stage.item("b").problems == ("wave: no wave of the fleet takes it",)


def test_what_is_wrong_for_all_is_said_once(stage: Stage) -> None:
    for name in "abc":
        stage.east.add_volume(name)
    stage.west.images.clear()
    plan = stage.plan()
    assert [one.split(":")[0] for one in plan.problems] == ["destination-instance"]
    assert not any(item.problems for item in plan.items)


def test_quota_is_held_against_all_of_them_over_time(stage: Stage) -> None:
    for name in "abc":
        stage.east.add_volume(name, 40 * GIB)
    stage.west.quotas = {**stage.west.quotas, "gigabytes": 100, "instances": 1}
    stage.keys = {"limits": {"concurrency": 3}}
    plan = stage.plan()
    refused = [item for item in plan.items if item.problems]
    assert len(refused) == 1
    assert "the quota of west leaves 20 gigabytes, 40 needed" in refused[0].problems[0]
    peaks = {(peak.cloud, peak.resource): (peak.needed, peak.left) for peak in plan.peaks}
    assert peaks["west", "gigabytes"] == (80, 100)
    assert peaks["west", "instances"] == (1, 1)
    # One instance at a time: no two at once.
    first, second = sorted(item.starts_at for item in plan.running if item.starts_at)
    assert second > first


def test_durations_come_from_what_was_measured(stage: Stage) -> None:
    stage.east.add_volume("db", 10 * GIB)
    measured = stage.plan(Pace(100 * MIB, 7))
    assert measured.items[0].predicted_seconds == pytest.approx(AROUND_SECONDS + 102.4)
    assert "the last 7 between these clouds took" in measured.pace
    assert "assumed" in stage.plan().pace


def test_a_shared_budget_makes_it_slower(stage: Stage) -> None:
    stage.east.add_volume("db", 10 * GIB)
    stage.keys = {"limits": {"concurrency": 4, "bandwidth": "40MiB/s"}}
    slow = stage.plan(Pace(100 * MIB, 7)).items[0].predicted_seconds
    assert slow == pytest.approx(AROUND_SECONDS + 1024)


def test_a_plan_reads_back_as_it_was_made(stage: Stage) -> None:
    stage.east.add_volume("db", 10 * GIB, metadata={"a": "b"})
    stage.east.add_volume("late")
    stage.keys = {"map": {"metadata": {"set": {"from": "{name}"}}}, "volumes": {"late": {
        "skip": "no", "verify": "wire"}}}  # fmt: skip
    plan = stage.plan()
    again = read_plan(json.dumps(to_json(plan)), "plan.json")
    assert again.fleet == plan.fleet
    assert stage.planner().check(again, NOW) == plan


def test_what_is_edited_in_a_plan_is_what_will_run(stage: Stage) -> None:
    stage.east.add_volume("db")
    stage.keys = {"map": {"type": {"unmapped": "fail"}}}
    document = to_json(stage.plan())
    assert document["volumes"][0]["problems"]
    document["volumes"][0] |= {"to_type": "fast", "verify": "wire", "to_name": "other"}
    plan = read_plan(json.dumps(document), "plan.json")
    checked = stage.planner().check(plan, NOW)
    assert checked.items[0].runs
    spec = spec_of(checked.fleet, checked.items[0], Settings())
    assert (spec.to_type, spec.destination.volume) == ("fast", "other")
    assert spec.transfer.verify is Verify.WIRE


def test_drift_is_told_and_decisions_are_no_drift(stage: Stage) -> None:
    same, grown = stage.east.add_volume("same"), stage.east.add_volume("grown")
    gone, taken = stage.east.add_volume("gone"), stage.east.add_volume("taken")
    left_out = stage.east.add_volume("left out")
    stage.keys = {"volumes": {left_out.id: {"skip": "no", "type": "fast"}}}
    plan = stage.plan()
    assert not drift(plan, stage.east.list_volumes())
    stage.east.volumes[grown.id] = replace(grown, size_bytes=2 * GIB)
    stage.east.volumes[taken.id] = replace(taken, attachments=(Attachment("s", ""),))
    del stage.east.volumes[gone.id], stage.east.volumes[left_out.id]
    stage.east.add_volume("new")
    found = {one.name: one.what for one in drift(plan, stage.east.list_volumes())}
    assert found == {
        "grown": "had 1.00 GiB, has 2.00 GiB",
        "taken": "is attached now",
        "gone": "is not there any more",
        "new": "would be selected today, and is not in the plan",
    }
    assert same.name not in found


def test_a_volume_that_was_freed_since_is_no_drift(stage: Stage) -> None:
    used = stage.east.add_volume("db", status="in-use", attachments=(Attachment("s", ""),))
    plan = stage.plan()
    assert plan.items[0].problems
    stage.east.volumes[used.id] = replace(used, status="available", attachments=())
    assert not drift(plan, stage.east.list_volumes())


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"blockferry_plan": 9}, "is of version 9"),
        ({"volumes": [{"id": "a"}]}, "volumes[0].size_bytes: is missing"),
        ({"volumes": [{"id": "a", "size_bytes": 1, "wave": "z"}]}, "there is no wave 'z'"),
        ({"volumes": [{"id": "a", "size_bytes": 1}] * 2}, "volume a stands here twice"),
        ({"volumes": [{"id": "a", "size_bytes": 1, "to_typ": "b"}]}, "did you mean to_type?"),
        ({"volumes": [{"id": "a", "size_bytes": 1, "verify": "b"}]}, "'b' is none of readback"),
    ],
)
def test_a_plan_that_was_edited_wrongly(
    stage: Stage, change: dict[str, Any], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path = stage.directory / "plan.json"
    path.write_text(json.dumps({**to_json(stage.plan()), **change}), encoding="utf-8")
    assert stage.run("plan", path) == 2
    assert said in capsys.readouterr().err


def test_the_command_writes_a_table_a_document_and_a_plan(
    stage: Stage, capsys: pytest.CaptureFixture[str]
) -> None:
    stage.east.add_volume("db", 10 * GIB)
    out = stage.directory / "plan.json"
    assert stage.run("plan", stage.write(), "--out", out) == 0
    table = capsys.readouterr().out
    assert "db" in table
    assert "1 of 1 volumes would be moved, 10.0 GiB" in table
    assert stage.run("plan", out, "-o", "json") == 0
    document = json.loads(capsys.readouterr().out)
    assert document["totals"]["moved"] == 1
    assert document["drift"] == []
    stage.east.add_volume("new")
    assert stage.run("plan", out, "-o", "json") == 12
    document = json.loads(capsys.readouterr().out)
    assert document["error"]["reason"] == "PLAN_DRIFTED"
    assert document["drift"] == ["new: would be selected today, and is not in the plan"]


def test_a_plan_with_problems_is_shown_and_no_success(
    stage: Stage, capsys: pytest.CaptureFixture[str]
) -> None:
    stage.east.add_volume("db", status="error")
    stage.keys = {"select": {"names": ["db", "nobody"]}}
    assert stage.run("plan", stage.write()) == 12
    said = capsys.readouterr()
    assert "refused: source-state" in said.out
    assert "east has no volume named nobody" in said.out + said.err


def test_a_file_that_is_not_there(stage: Stage) -> None:
    assert stage.run("plan", stage.directory / "no.yaml") == 11
