"""Several processes and one PostgreSQL: they share a fleet, and nothing is driven twice."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from blockferry_controller.engine.fleet_records import ItemState
from blockferry_controller.engine.state import StateStore
from blockferry_controller.fleet.founding import found
from blockferry_controller.fleet.planning import Settings
from tests.cut_line import cut_line
from tests.postgres import PostgresServer
from tests.unit.controller.fleet.stage import Stage

pytestmark = pytest.mark.timeout(240)
TAKEN_OVER_SECONDS = 60.0
"""What was promised: from the loss of a process until another goes on."""


@dataclass
class Show:
    """A fleet in PostgreSQL, processes that work for it, and what its agents have logged."""

    server: PostgresServer
    url: str
    directory: Path
    store: StateStore
    processes: "list[subprocess.Popen[str]]" = field(default_factory=list)

    def start(self, seconds: float, *fleet: str, url: str = "") -> "subprocess.Popen[str]":
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.fakes.crew_member", url or self.url,
             str(self.directory / "agents"), str(seconds), *fleet],
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip
        self.processes.append(process)
        return process

    def holders(self) -> dict[int, list[str]]:
        """Migrations that run, by the pid that has taken them."""
        found_: dict[int, list[str]] = {}
        for one in self.store.crew.taken():
            if one.holder:
                found_.setdefault(int(one.holder.split("/")[1]), []).append(one.migration_id)
        return found_

    def until(self, condition: Callable[[], object], seconds: float = 100) -> float:
        start = time.monotonic()
        while not condition():
            assert time.monotonic() < start + seconds, (
                self.holders(),
                self.store.fleets.items("shop"),
            )
            time.sleep(0.1)
        return time.monotonic() - start

    def all_at_work(self, *processes: "subprocess.Popen[str]") -> bool:
        """Whether each has taken a volume, and commanded an agent."""
        pids = {one.pid for one in processes}
        commanded = {line["pid"] for log in self.logs().values() for line in log}
        return pids <= set(self.holders()) & commanded

    def logs(self) -> dict[str, list[dict[str, Any]]]:
        return {
            path.stem: [json.loads(line) for line in path.read_text().splitlines()]
            for path in (self.directory / "agents").glob("*.log")
        }

    def assert_nothing_was_driven_twice(self, volumes: int) -> None:
        items = self.store.fleets.items("shop")
        assert {item.state for item in items} == {ItemState.SUCCEEDED}
        logs = self.logs()
        assert sorted(logs) == sorted(item.migration_id for item in items)
        assert len(logs) == volumes
        for own, log in logs.items():
            obeyed = [line for line in log if line["word"] != "refused"]
            epochs = [line["epoch"] for line in obeyed]
            assert epochs == sorted(epochs), own
            # Of one epoch, every command came from one process.
            assert len({(line["epoch"], line["pid"]) for line in obeyed}) == len(set(epochs)), own
            # Once, unless its end could not be written down: then the next attempt finds it.
            assert obeyed[-1]["word"] == "done", own
            assert [line["word"] for line in obeyed].count("done") <= len(set(epochs)), own


@pytest.fixture
def show(
    postgres_server: PostgresServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Show]:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    (tmp_path / "agents").mkdir()
    url = postgres_server.new_database()
    with closing(StateStore.open(url)) as store:
        show = Show(postgres_server, url, tmp_path, store)
        try:
            yield show
        finally:
            for process in show.processes:
                process.kill()
                process.communicate()


def fleet_of(show: Show, volumes: int, concurrency: int) -> None:
    stage = Stage(show.directory, show.store)
    for at in range(volumes):
        stage.east.add_volume(f"v{at:03}")
    stage.keys = {"limits": {"concurrency": concurrency}}
    found(show.store.fleets, stage.plan(), Settings())


def test_one_is_killed_and_one_is_cut_off(show: Show) -> None:
    fleet_of(show, volumes=30, concurrency=9)
    with cut_line(show.server.directory) as (line, place):
        batch = show.start(3, "shop")
        killed = show.start(3)
        cut = show.start(3, url=show.url.replace(str(show.server.directory), str(place)))
        show.until(lambda: show.all_at_work(batch, killed, cut))

        lost = {pid: show.holders()[pid] for pid in (killed.pid, cut.pid)}
        # What had only been taken has had no attempt yet.
        begun = show.logs().keys()
        killed.kill()
        line.cut()
        for pid in lost:
            gone = show.until(lambda pid=pid: pid not in show.holders())  # type: ignore[misc]
            assert gone < TAKEN_OVER_SECONDS
        assert batch.wait(150) == 0
        line.mend()
        cut.send_signal(signal.SIGTERM)
        assert cut.wait(60) == 0, cut.communicate()
    show.assert_nothing_was_driven_twice(30)
    logs, taken_over = show.logs(), [own for owns in lost.values() for own in owns]
    # What was under way where a process was lost went on elsewhere, as a later attempt.
    assert {logs[own][-1]["pid"] for own in taken_over} <= {batch.pid}
    assert all(logs[own][-1]["epoch"] > 1 for own in taken_over if own in begun)
    assert {line["pid"] for log in logs.values() for line in log} == {
        batch.pid, killed.pid, cut.pid,
    }  # fmt: skip


def test_when_who_drives_dies_another_drives(show: Show) -> None:
    fleet_of(show, volumes=12, concurrency=4)
    batch = show.start(1, "shop")
    show.until(lambda: show.all_at_work(batch))
    helper = show.start(1)
    show.until(lambda: str(helper.pid) in " ".join(show.store.crew.alive()))
    batch.kill()
    taken = show.until(lambda: show.store.fleets.get("shop").state == "SUCCEEDED")
    assert taken < TAKEN_OVER_SECONDS
    os.kill(helper.pid, signal.SIGTERM)
    assert helper.wait(60) == 0
    show.assert_nothing_was_driven_twice(12)
