"""Where keys lie while a migration runs, and where they must not."""

import stat
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from blockferry.errors import UnreachableError
from blockferry_controller.engine.records import State
from blockferry_controller.engine.state import StateStore
from blockferry_controller.migration.ending import keys_path
from blockferry_controller.migration.service import Migrations
from blockferry_controller.spec import Endpoint, Kind, Spec
from tests.torture.clouds import plain_engine
from tests.torture.matrix import Fault
from tests.torture.world import SIDES, Killed, World

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


@contextmanager
def _interrupted(directory: Path) -> Iterator[tuple[World, Migrations, str, Path]]:
    """A migration that failed when all bytes were safe, and was undone; its keys' file."""
    world = World(faults=[Fault("source", "detach_volume", 1, late=False, kind="error")])
    with closing(StateStore.open(f"sqlite:///{directory}/state.db")) as store, plain_engine():
        migrations = Migrations(store, world.connect, world.dial, lambda _event: None)
        spec = Spec(
            Kind.MIGRATE,
            Endpoint("source", world.volume.id),
            Endpoint("destination"),
            controller_address="192.0.2.1",
        )
        own = migrations.create(spec).id
        with pytest.raises(UnreachableError):
            migrations.run(own)
        path = keys_path(store, own)
        assert path.exists()
        yield world, migrations, own, path


def test_keys_of_a_copy_that_can_be_resumed_stay(tmp_path: Path) -> None:
    with _interrupted(tmp_path) as (world, migrations, own, path):
        items, errors = migrations.cleanup(SIDES, dry_run=False)
        assert errors == []
        assert [(item.kind, item.action) for item in items] == [("volume", "keep")]
        assert path.exists()
        migrations.resume(own)
        assert world.leftovers() == []


@pytest.mark.parametrize("dry_run", [True, False])
def test_keys_of_a_migration_of_which_nothing_is_left_are_destroyed(
    tmp_path: Path, dry_run: bool
) -> None:
    with _interrupted(tmp_path) as (world, migrations, own, path):
        _delete_copy(world)
        # Whoever has not looked at both clouds does not know.
        assert migrations.cleanup(SIDES[1:], dry_run=dry_run) == ([], [])
        world.away.add("source")
        items, errors = migrations.cleanup(SIDES, dry_run=dry_run)
        assert (items, [error.reason for error in errors]) == ([], ["CLOUD_FAILS"])
        world.away.clear()
        assert path.exists()

        items, errors = migrations.cleanup(SIDES, dry_run=dry_run)
        assert errors == []
        [keys] = items
        assert (keys.kind, keys.migration_id, keys.id) == ("keys", own, str(path))
        assert keys.action == ("delete" if dry_run else "deleted")
        assert path.exists() is dry_run

        migrations.resume(own)
        assert world.leftovers() == []
        assert not path.exists()


@pytest.mark.parametrize("state", [State.SUCCEEDED, State.CANCELLED])
def test_keys_that_outlived_their_migration_are_destroyed(tmp_path: Path, state: State) -> None:
    with _interrupted(tmp_path) as (_, migrations, own, path):
        with closing(StateStore.open(f"sqlite:///{tmp_path}/state.db")) as store:
            store.set_state(own, state)
        items, _ = migrations.cleanup([], dry_run=False)
        assert [(item.kind, item.action) for item in items] == [("keys", "deleted")]
        assert not path.exists()


def _delete_copy(world: World) -> None:
    """A person does, by hand."""
    cloud = world.clouds["destination"]
    for resource in cloud.find_resources():
        cloud.delete_volume(resource.id)


def _holds_key(path: Path) -> bool:
    return MARK in path.read_bytes()
