"""`blockferry batch` with a pool, between two embedded clouds: real agents, real hand-overs."""

import json
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from blockferry_controller.engine.pair_records import PairRecord, PairState
from blockferry_controller.engine.state import StateStore
from tests.fleet_show import Show, drained, ended, show
from tests.postgres import PostgresServer
from tests.sim.cloud import EmbeddedCloud

pytestmark = pytest.mark.timeout(600)
VOLUMES = 6


class Boots:
    """Ids of all servers that a cloud has had."""

    def __init__(self, cloud: EmbeddedCloud) -> None:
        self.seen: set[str] = set()
        self._cloud = cloud
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)
        self._thread.start()

    def _look(self) -> None:
        while not self._over.wait(0.05):
            self.seen |= self.now()

    def now(self) -> set[str]:
        with self._cloud.lock:
            return set(self._cloud.nova.servers)

    def close(self) -> None:
        self._over.set()
        self._thread.join()


@contextmanager
def pooled(
    directory: Path,
    pool: dict[str, object],
    state_url: str = "",
    count: int = VOLUMES,
    **keys: object,
) -> Iterator[Show]:
    """A fleet whose file has `pool`."""
    with show(directory, count=count, concurrency=4, state_url=state_url) as stage:
        document = json.loads(stage.fleet.read_text(encoding="utf-8"))
        stage.fleet.write_text(json.dumps({**document, "pool": pool, **keys}), encoding="utf-8")
        yield stage


def pairs(stage: Show) -> list[PairRecord]:
    """All of the state, ended ones too."""
    with closing(StateStore.open(stage.state_url)) as store:
        return store.pairs.all()


def until(condition: Callable[[], bool], seconds: float = 200) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.2)


def assert_all_is_well(stage: Show) -> None:
    document = stage.state()
    assert (document["state"], document["counts"]) == ("SUCCEEDED", {"SUCCEEDED": stage.count})
    assert stage.unequal() == []
    assert stage.left() == []
    assert not list(stage.directory.rglob("authorities/*"))
    assert {one.state for one in pairs(stage)} == {PairState.ENDED}


def test_two_pairs_move_six_volumes(tmp_path: Path) -> None:
    with (
        pooled(tmp_path, {"max": 2}) as stage,
        closing(Boots(stage.clouds.east)) as east,
        closing(Boots(stage.clouds.west)) as west,
    ):
        done = stage.run("batch", str(stage.fleet), seconds=500)
        assert done.returncode == 0, done.stderr
        assert len(east.seen) <= 2
        assert len(west.seen) <= 2
        assert_all_is_well(stage)
        assert sum(one.served for one in pairs(stage)) == VOLUMES


def test_one_pair_moves_ten_volumes_four_at_a_time(tmp_path: Path) -> None:
    """Real agents, four an instance, each of which finds its own volume by its serial."""
    pool: dict[str, object] = {"max": 1, "lanes": 4}
    with (
        pooled(tmp_path, pool, count=10, waves=[{"name": "all"}]) as stage,
        closing(Boots(stage.clouds.east)) as east,
        closing(Boots(stage.clouds.west)) as west,
    ):
        with ended(stage.start("batch", str(stage.fleet))) as process:
            told = drained(process)
            until(lambda: any(len(one.guests) == 4 for one in pairs(stage)))
            (shown,) = stage.state()["pairs"]
            moving = {item["migration"] for item in stage.state()["volumes"]}
            inside = [lane["migration"] for lane in shown["lanes"] if lane["migration"]]
            assert inside
            assert set(inside) <= moving
            assert process.wait(400) == 0, "".join(told)[-4000:]
        assert (len(east.seen), len(west.seen)) == (1, 1)
        assert_all_is_well(stage)
        (pair,) = pairs(stage)
        assert pair.served == 10
        assert sum(lane.served > 0 for lane in pair.lanes) == 4


@pytest.mark.parametrize("lanes", [1, 3])
def test_a_lost_instance_and_a_killed_controller_leave_nothing(tmp_path: Path, lanes: int) -> None:
    """The instance goes while it serves; the controller while a pair is handed over or free."""
    with pooled(tmp_path, {"max": 1, "lanes": lanes}) as stage:
        with ended(stage.start("batch", str(stage.fleet), "-o", "json")) as process:
            until(lambda: any(one.served >= 1 and one.guests for one in pairs(stage)))
            with stage.clouds.west.lock:
                (server,) = stage.clouds.west.nova.servers
            stage.clouds.west.connect().compute.delete_server(server)
            until(lambda: any(one.served >= 2 for one in pairs(stage)))
            process.send_signal(signal.SIGKILL)
            process.communicate(timeout=20)
        last = stage.run("batch", str(stage.fleet), seconds=400)
        assert last.returncode == 0, last.stderr
        assert_all_is_well(stage)
        assert len(pairs(stage)) < VOLUMES


@pytest.mark.parametrize("then", ["batch", "cleanup"])
def test_the_free_pair_of_a_killed_controller_is_found(tmp_path: Path, then: str) -> None:
    waves = [
        {"name": "one", "select": {"names": "canary-*"}},
        {"name": "two", "gate": {"approval": True}},
    ]
    with pooled(tmp_path, {"max": 1}, waves=waves) as stage:
        with ended(stage.start("batch", str(stage.fleet))) as process:
            until(lambda: stage.succeeded() == 3)
            until(lambda: [one.state for one in pairs(stage)] == [PairState.FREE])
            process.send_signal(signal.SIGKILL)
            process.communicate(timeout=20)
        (free,) = pairs(stage)
        assert sum(free.id in one for one in stage.left()) == 6
        if then == "cleanup":
            done = stage.run("cleanup", "-o", "json", seconds=100)
            assert done.returncode == 0, done.stderr
            items = json.loads(done.stdout)
            assert {item["migration_id"] for item in items} == {free.id}
            assert not any("blockferry" in one for one in stage.left())
        stage.run("approve", "show", "two", seconds=60)
        last = stage.run("batch", str(stage.fleet), seconds=400)
        assert last.returncode == 0, last.stderr
        assert_all_is_well(stage)
        served = {one.id: one.served for one in pairs(stage)}
        assert served[free.id] == (VOLUMES if then == "batch" else 3)


def test_two_processes_share_a_pool_and_one_is_killed(
    tmp_path: Path, postgres_server: PostgresServer
) -> None:
    url = postgres_server.new_database()
    with (
        pooled(tmp_path, {"max": 2}, state_url=url) as stage,
        ended(stage.start("worker", "--room", "2")) as worker,
    ):
        stage.kill_in_the_middle(seconds=300)
        until(lambda: stage.state()["state"] == "SUCCEEDED", seconds=300)
        worker.send_signal(signal.SIGTERM)
        _, told = worker.communicate(timeout=60)
        assert worker.returncode == 0, told
        assert_all_is_well(stage)
        assert len(pairs(stage)) < VOLUMES
