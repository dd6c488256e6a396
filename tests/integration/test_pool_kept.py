"""Real instances of a free pair: they power themselves off unless somebody speaks to them."""

import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from blockferry import __version__
from blockferry.limits import MIB
from blockferry_controller.agents.dial import dial
from blockferry_controller.clouds.openstack.connect import connect
from blockferry_controller.engine.pair_records import PairState
from blockferry_controller.engine.state import StateStore
from blockferry_controller.migration import instance_data
from blockferry_controller.migration.service import Migrations
from blockferry_controller.spec import Endpoint, Kind, Pool, Spec
from tests.sim import EmbeddedClouds
from tests.sim.guest import why_guests_cannot_run
from tests.torture.clouds import plain_engine

pytestmark = [
    pytest.mark.skipif(bool(why_guests_cannot_run()), reason=why_guests_cannot_run()),
    pytest.mark.timeout(300),
]
DEAD_MAN_SECONDS = 8


def test_instances_stay_on_while_they_are_spoken_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(instance_data, "DEAD_MAN_SECONDS", DEAD_MAN_SECONDS)
    with (
        EmbeddedClouds(tmp_path / "clouds", prepared_version=__version__) as clouds,
        closing(StateStore.open(f"sqlite:///{tmp_path}/state/state.db")) as store,
        plain_engine(),
    ):
        monkeypatch.setenv("OS_CLIENT_CONFIG_FILE", str(clouds.clouds_yaml))
        migrations = Migrations(store, connect, dial, lambda _event: None)

        def move(name: str) -> None:
            own = clouds.east.make_volume(name, 1, lambda path: fill(path, name))
            pool = Pool("shop", 1, 2)
            spec = Spec(Kind.MIGRATE, Endpoint("east", own), Endpoint("west"), pool=pool)
            migrations.run(migrations.create(spec).id)

        def statuses() -> set[str]:
            with clouds.east.lock, clouds.west.lock:
                servers = (*clouds.east.nova.servers.values(), *clouds.west.nova.servers.values())
                return {server.status for server in servers}

        move("first")
        (pair,) = store.pairs.of("shop")
        assert pair.state is PairState.FREE
        over = time.monotonic() + 2.5 * DEAD_MAN_SECONDS
        while time.monotonic() < over:
            migrations.speak_to_pair(pair.id)
            assert statuses() == {"ACTIVE"}
            time.sleep(1)
        move("second")
        (pair,) = store.pairs.of("shop")
        assert pair.served == 2
        until(lambda: statuses() == {"SHUTOFF"}, 5 * DEAD_MAN_SECONDS)
        assert migrations.end_pair(pair.id)
        assert not statuses()


def fill(path: Path, name: str) -> None:
    with path.open("r+b") as file:
        file.write(name.encode() * (MIB // len(name)))


def until(condition: Callable[[], bool], seconds: float) -> None:
    over = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < over
        time.sleep(0.2)
