"""The commands of a fleet, as a person gives them."""

import csv
import io
import json
import os
import signal
import threading
import time
from typing import Any

import pytest
from msgspec.structs import replace

from blockferry.errors import PreconditionError
from blockferry.limits import GIB
from blockferry_controller.clouds.port import Attachment
from blockferry_controller.engine.fleet_records import ItemState
from blockferry_controller.engine.lease import Holder
from blockferry_controller.fleet.founding import found
from blockferry_controller.fleet.planning import Settings
from tests.fakes.ferry import FakeFerry
from tests.unit.controller.fleet.stage import Stage

pytestmark = pytest.mark.timeout(120)


@pytest.fixture
def ferry(stage: Stage) -> FakeFerry:
    return FakeFerry(stage.store, {"east": stage.east, "west": stage.west})


def run(stage: Stage, ferry: FakeFerry, *arguments: object) -> int:
    return stage.run(*arguments, "-o", "json", service=lambda store, listener: ferry)


def written(capsys: pytest.CaptureFixture[str]) -> Any:
    return json.loads(capsys.readouterr().out)


def states(document: Any) -> dict[str, str]:
    return {one["name"]: one["state"] for one in document["volumes"]}


def test_a_batch_begins_a_fleet_and_running_it_again_does_nothing_more(
    stage: Stage, ferry: FakeFerry, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in "ab":
        stage.east.add_volume(name)
    path = stage.write()
    assert run(stage, ferry, "batch", path) == 0
    document = written(capsys)
    assert (document["state"], document["counts"]) == ("SUCCEEDED", {"SUCCEEDED": 2})
    stage.east.add_volume("too late")
    assert run(stage, ferry, "batch", path) == 0
    assert len(ferry.ran) == 2


def test_a_batch_with_failures_exits_with_3_and_retry_puts_them_back(
    stage: Stage, ferry: FakeFerry, capsys: pytest.CaptureFixture[str]
) -> None:
    a, b = stage.east.add_volume("a"), stage.east.add_volume("b")
    ferry.script = {
        a.id: [PreconditionError("VOLUME_STATE", "broken")],
        b.id: [PreconditionError("OTHER", "broken")],
    }
    path = stage.write()
    assert run(stage, ferry, "batch", path) == 3
    document = written(capsys)
    assert document["error"]["reason"] == "FLEET_FAILED"
    assert states(document) == {"a": "FAILED", "b": "FAILED"}
    assert run(stage, ferry, "retry", "shop", "--reason", "VOLUME_STATE") == 0
    assert states(written(capsys)) == {"a": "WAITING", "b": "FAILED"}
    assert run(stage, ferry, "skip", "shop", "b", "--because", "=gone") == 0
    capsys.readouterr()
    assert run(stage, ferry, "batch", path) == 0
    assert states(written(capsys)) == {"a": "SUCCEEDED", "b": "SKIPPED"}


def test_an_incomplete_plan_is_refused_unless_that_is_accepted(
    stage: Stage, ferry: FakeFerry, capsys: pytest.CaptureFixture[str]
) -> None:
    stage.east.add_volume("good")
    stage.east.add_volume("bad", status="error")
    path = stage.write()
    assert run(stage, ferry, "batch", path) == 12
    assert written(capsys)["error"]["reason"] == "PLAN_HAS_PROBLEMS"
    assert stage.store.fleets.find("shop") is None
    assert run(stage, ferry, "batch", path, "--allow-incomplete") == 3
    assert states(written(capsys)) == {"good": "SUCCEEDED", "bad": "FAILED"}


def test_a_plan_runs_as_it_was_edited_and_one_that_drifted_does_not(
    stage: Stage, ferry: FakeFerry, capsys: pytest.CaptureFixture[str]
) -> None:
    kept, dropped = stage.east.add_volume("kept"), stage.east.add_volume("dropped")
    out = stage.directory / "plan.json"
    assert stage.run("plan", stage.write(), "--out", out) == 0
    plan = json.loads(out.read_text(encoding="utf-8"))
    for one in plan["volumes"]:
        one.update({"to_name": "other"} if one["id"] == kept.id else {"skip": "by hand"})
    out.write_text(json.dumps(plan), encoding="utf-8")
    stage.east.volumes[kept.id] = replace(kept, attachments=(Attachment("s", ""),))
    capsys.readouterr()
    assert run(stage, ferry, "batch", out) == 12
    assert written(capsys)["error"]["reason"] == "PLAN_DRIFTED"
    stage.east.volumes[kept.id] = kept
    assert run(stage, ferry, "batch", out) == 0
    assert states(written(capsys)) == {"kept": "SUCCEEDED", "dropped": "SKIPPED"}
    assert stage.store.listing.newest(1)[0].spec.destination.volume == "other"
    assert ferry.ran == [kept.id]
    assert dropped.id not in ferry.ran


def test_another_file_of_the_same_name_is_refused(
    stage: Stage, ferry: FakeFerry, capsys: pytest.CaptureFixture[str]
) -> None:
    stage.east.add_volume("a")
    assert run(stage, ferry, "batch", stage.write()) == 0
    stage.keys = {"attempts": 5}
    capsys.readouterr()
    assert run(stage, ferry, "batch", stage.write()) == 12
    error = written(capsys)["error"]
    assert error["reason"] == "FLEET_CHANGED"
    assert "attempts differ" in error["message"]


def test_words_left_for_a_fleet(
    stage: Stage, ferry: FakeFerry, capsys: pytest.CaptureFixture[str]
) -> None:
    stage.east.add_volume("a")
    found(stage.store.fleets, stage.plan(), Settings())
    assert run(stage, ferry, "pause", "shop") == 0
    assert run(stage, ferry, "set", "shop", "limit=8MiB/s") == 0
    assert run(stage, ferry, "approve", "shop", "all") == 0
    wants = stage.store.fleets.wants("shop")
    assert wants.paused
    assert wants.limit_bytes_per_second == 8 << 20
    assert wants.approved == {"all"}
    assert run(stage, ferry, "resume", "shop") == 0
    assert not stage.store.fleets.wants("shop").paused
    assert run(stage, ferry, "approve", "shop", "none") == 11
    assert run(stage, ferry, "approve", "nobody", "all") == 11
    assert run(stage, ferry, "skip", "shop", "nothing") == 11
    capsys.readouterr()
    assert run(stage, ferry, "cancel", "shop") == 0
    assert written(capsys)["state"] == "CANCELLED"
    assert run(stage, ferry, "pause", "shop") == 12
    assert run(stage, ferry, "batch", stage.write()) == 12


@pytest.mark.parametrize("output", ["md", "html", "csv", "json"])
def test_the_report_tells_all_and_names_do_no_harm(
    stage: Stage, ferry: FakeFerry, capsys: pytest.CaptureFixture[str], output: str
) -> None:
    stage.east.add_volume("=1+1|<b>", 2 * GIB)
    bad = stage.east.add_volume("bad")
    ferry.script = {bad.id: [PreconditionError("VOLUME_STATE", "is broken")]}
    assert run(stage, ferry, "batch", stage.write()) == 3
    capsys.readouterr()
    assert stage.run("report", "shop", "-o", output) == 0
    text = capsys.readouterr().out
    assert "is broken" in text
    if output == "json":
        document = json.loads(text)
        assert document["totals"] | {"duration_seconds": 0, "bytes_per_second": 0} == {
            "volumes": 2, "succeeded": 1, "failed": 1, "size_bytes": 2 * GIB, "sent_bytes": 0,
            "wire_bytes": 0, "verified": 0, "left_behind": 0,
            "duration_seconds": 0, "bytes_per_second": 0,
        }  # fmt: skip
        assert document["failures"] == [{"reason": "VOLUME_STATE", "volumes": 1}]
    elif output == "csv":
        rows = list(csv.DictReader(io.StringIO(text)))
        assert {row["name"] for row in rows} == {"'=1+1|<b>", "bad"}
    else:
        shown = {"md": r"=1+1\|\<b>", "html": "<b>=1+1|&lt;b&gt;</b>"}[output]
        assert shown in text


def test_a_migrations_report_comes_in_no_such_form(
    stage: Stage, capsys: pytest.CaptureFixture[str]
) -> None:
    assert stage.run("report", "m-1", "-o", "html") == 2
    assert "only a fleet's report" in capsys.readouterr().err


def test_what_runs_cannot_be_skipped(stage: Stage, ferry: FakeFerry) -> None:
    stage.east.add_volume("a")
    found(stage.store.fleets, stage.plan(), Settings())
    me = Holder.of_this_process()
    stage.store.fleets.acquire("shop", me)
    stage.store.fleets.change("shop", me, 0, ItemState.WAITING, state=ItemState.RUNNING)
    assert run(stage, ferry, "skip", "shop", "a") == 13


def test_a_worker_moves_what_was_begun_until_ctrl_c(
    stage: Stage, ferry: FakeFerry, capsys: pytest.CaptureFixture[str]
) -> None:
    stage.east.add_volume("a")
    found(stage.store.fleets, stage.plan(), Settings())

    def end() -> None:
        deadline = time.monotonic() + 20
        while stage.store.fleets.get("shop").state != "SUCCEEDED" and time.monotonic() < deadline:
            time.sleep(0.05)
        os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=end)
    thread.start()
    assert run(stage, ferry, "worker", "--room", "2") == 0
    thread.join()
    assert stage.store.fleets.get("shop").state == "SUCCEEDED"
    assert "a succeeded" in capsys.readouterr().err
