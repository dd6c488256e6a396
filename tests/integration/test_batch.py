"""`blockferry plan` and `batch` as a person runs them, between two embedded clouds.

Everything but the clouds is real. `make fleet-demo` is the same with sixty volumes.
"""

from pathlib import Path

import pytest

from tests.fleet_demo import show

pytestmark = pytest.mark.timeout(600)


def test_a_fleet_with_faults_survives_a_killed_controller(tmp_path: Path) -> None:
    with show(tmp_path, count=5, concurrency=2) as stage:
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
