"""Where keys lie while a migration runs, and where they must not."""

import stat
from contextlib import closing
from pathlib import Path

import pytest

from blockferry_controller.engine.state import StateStore
from blockferry_controller.migration.service import Migrations
from blockferry_controller.spec import Endpoint, Kind, Spec
from tests.torture.clouds import plain_engine
from tests.torture.matrix import Fault
from tests.torture.world import Killed, World

MARK = b"PRIVATE KEY"


def test_keys_lie_in_one_file_of_mode_0600_and_go_with_the_migration(tmp_path: Path) -> None:
    world = World(faults=[Fault("source", "start_job", 2, late=True, kind="killed")])
    told: list[str] = []
    with closing(StateStore.open(f"sqlite:///{tmp_path}/state.db")) as store, plain_engine():
        migrations = Migrations(
            store, world.connect, world.dial, lambda event: told.append(repr(event))
        )
        spec = Spec(
            Kind.MIGRATE,
            Endpoint("source", world.volume.id),
            Endpoint("destination"),
            controller_address="192.0.2.1",
        )
        own = migrations.create(spec).id
        with pytest.raises(Killed):
            migrations.run(own)

        holders = [path for path in tmp_path.rglob("*") if path.is_file() and _holds_key(path)]
        assert holders == [tmp_path / "authorities" / f"{own}.pem"]
        assert stat.S_IMODE(holders[0].stat().st_mode) == 0o600
        assert stat.S_IMODE(holders[0].parent.stat().st_mode) == 0o700

        migrations.resume(own)
        assert not [path for path in tmp_path.rglob("*") if path.is_file() and _holds_key(path)]
    assert told
    assert not any(MARK.decode() in event for event in told)


def _holds_key(path: Path) -> bool:
    return MARK in path.read_bytes()
