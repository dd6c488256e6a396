"""`blockferry plan` and `batch` as a person runs them, between two embedded clouds.

Everything but the clouds is real. `make fleet-demo` is the same with sixty volumes.
"""

import json
import signal
import time
from pathlib import Path

import pytest

from tests.fakes.receiver import Receiver, receiver
from tests.fleet_show import Show, ended, show
from tests.postgres import PostgresServer

pytestmark = pytest.mark.timeout(600)


def test_a_fleet_with_faults_survives_a_killed_controller(tmp_path: Path) -> None:
    with receiver(500, 503) as heard, show(tmp_path, count=5, concurrency=2) as stage:
        document = json.loads(stage.fleet.read_text(encoding="utf-8"))
        document["hooks"] = [{"name": "web", "url": heard.url}]
        stage.fleet.write_text(json.dumps(document), encoding="utf-8")
        plan = stage.run("plan", str(stage.fleet), seconds=120)
        assert plan.returncode == 0, plan.stderr
        assert "5 of 5 volumes would be moved" in plan.stdout
        stage.break_things()
        stage.kill_in_the_middle(seconds=300)
        assert stage.state()["state"] == "INTERRUPTED"
        last = stage.run("batch", str(stage.fleet), seconds=400)
        assert last.returncode == 0, last.stderr
        document = stage.state()
        assert (document["state"], document["counts"]) == ("SUCCEEDED", {"SUCCEEDED": 5})
        assert stage.unequal() == []
        assert stage.left() == []
        again = stage.run("batch", str(stage.fleet), seconds=60)
        assert again.returncode == 0, again.stderr
        assert stage.left() == []
        all_of_it_was_told(stage, heard)


def all_of_it_was_told(stage: Show, heard: Receiver) -> None:
    """Every event of the history reached the hook, before the kill, across it and after."""
    history = stage.run("history", "show", "-o", "json", seconds=60)
    happened = json.loads(history.stdout)[::-1]
    told = {event["id"]: event for event in heard.events}
    assert list(told.values()) == happened
    for word in ("started", "copied", "verified", "succeeded"):
        assert {
            event["volume"]["name"] for event in happened if event["event"] == word
        } == stage.volumes.keys(), word
    waves = [event["data"]["wave"] for event in happened if event["event"] == "wave_done"]
    assert waves == ["canary", "databases", "rest"]
    assert happened[0]["event"] == "planned"
    assert happened[-1]["event"] == "fleet_done"


def test_a_worker_goes_on_when_the_batch_beside_it_is_killed(
    tmp_path: Path, postgres_server: PostgresServer
) -> None:
    url = postgres_server.new_database()
    with (
        show(tmp_path, count=5, concurrency=3, state_url=url) as stage,
        ended(stage.start("worker", "--room", "2")) as worker,
    ):
        stage.kill_in_the_middle(seconds=300)
        deadline = time.monotonic() + 200
        while stage.state()["state"] != "SUCCEEDED":
            assert worker.poll() is None, worker.communicate()
            assert time.monotonic() < deadline, stage.state()
            time.sleep(1)
        worker.send_signal(signal.SIGTERM)
        _, told = worker.communicate(timeout=60)
        assert worker.returncode == 0, told
        assert stage.state()["counts"] == {"SUCCEEDED": 5}
        assert stage.unequal() == []
        assert stage.left() == []
