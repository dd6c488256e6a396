"""A controller is cut off from the state before each thing that it asks it, and comes back.

Others have brought the migration to its end by then: it makes nothing any more in the clouds,
and writes nothing of what it had in hand.
"""

import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from blockferry.errors import BlockferryError, BusyError
from blockferry_controller.clouds.port import Tag
from blockferry_controller.engine import tables as t
from blockferry_controller.engine.records import MigrationRecord, State
from blockferry_controller.engine.state import StateStore
from blockferry_controller.migration import service
from blockferry_controller.migration.service import Migrations
from blockferry_controller.spec import Endpoint, Kind, Spec
from tests.torture.clouds import plain_engine
from tests.torture.world import World

pytestmark = pytest.mark.timeout(240)
CUTS = 400
"""More than a migration asks the state."""
REFUSED = {"", "LEASE_LOST", "MIGRATION_ENDED"}
"""How it ends for who was cut off; in the last moments it has nothing to do any more."""


@pytest.fixture(autouse=True)
def _in_memory() -> Iterator[None]:
    with plain_engine():
        yield


@dataclass
class Leases:
    """Stands for LeaseKeeper: a lease runs out when the test says so, and is never renewed."""

    lost: list[Callable[[], None]] = field(default_factory=list)
    lapsed: bool = False

    def __call__(self, _renew: Callable[[], bool], lost: Callable[[], None]) -> "Leases":
        self.lost.append(lost)
        return self

    def close(self) -> None:
        """Nothing runs."""


@dataclass
class Cut:
    """The state of a controller, which is away at the `nth` connection for as long as `meanwhile`.

    Others that it asks for in that time, in other threads, wait as well.
    """

    nth: int
    meanwhile: Callable[[], None]
    asked: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def at_checkout(self, *_: object) -> None:
        """Called before each transaction."""
        with self.lock:
            self.asked += 1
            if self.asked == self.nth:
                self.meanwhile()


def play(place: Path, nth: int, monkeypatch: pytest.MonkeyPatch) -> bool:
    """One migration, whose controller is cut off once; whether it came to that."""
    place.mkdir()
    world, leases, ended = World(), Leases(), list[MigrationRecord]()
    url = f"sqlite:///{place}/state.db"
    spec = Spec(
        Kind.MIGRATE, Endpoint("source", world.volume.id), Endpoint("destination"),
        controller_address="192.0.2.1",
    )  # fmt: skip
    with closing(StateStore.open(url)) as near, closing(StateStore.open(url)) as far:
        own = Migrations(near, world.connect, world.dial, ignore).create(spec).id

        def take_over() -> None:
            with near.database.begin() as connection:
                connection.execute(t.leases.update().values(expires_at=0.0))
            for lost in list(leases.lost):
                lost()
            ended.append(Migrations(near, world.connect, world.dial, ignore).run(own))

        cut = Cut(nth, take_over)
        sa.event.listen(far.database, "checkout", cut.at_checkout)
        reason = ""
        with monkeypatch.context() as patch:
            patch.setattr(service, "LeaseKeeper", leases)
            try:
                Migrations(far, world.connect, world.dial, ignore).run(own)
            except BlockferryError as error:
                reason = error.reason
        assert reason in (REFUSED if ended else {""}), nth
        record = near.get(own)
        assert record.state == State.SUCCEEDED.value, nth
        volumes = world.clouds["destination"].volumes
        assert world.leftovers() == [], nth
        assert record.facts["destination_volume_id"] in volumes, nth
        if ended:
            assert (record.epoch, record.facts) == (ended[0].epoch, ended[0].facts), nth
            assert record.progress == ended[0].progress, nth
            assert record.steps == ended[0].steps, nth
        assert near.manifests.count(own) == 0, nth
    return bool(ended)


def test_who_loses_its_lease_while_it_cancels_removes_nothing_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The instances that are there by then may be those of another's attempt."""
    world, leases = World(), Leases()
    spec = Spec(
        Kind.MIGRATE, Endpoint("source", world.volume.id), Endpoint("destination"),
        controller_address="192.0.2.1",
    )  # fmt: skip
    with closing(StateStore.open(f"sqlite:///{tmp_path}/state.db")) as store:
        migrations = Migrations(store, world.connect, world.dial, ignore)
        own = migrations.create(spec).id
        made = world.clouds["destination"]
        group = made.ensure_security_group(Tag(own, "destination-security-group"), ())
        leases.lapsed = True
        with monkeypatch.context() as patch:
            patch.setattr(service, "LeaseKeeper", leases)
            with pytest.raises(BusyError):
                migrations.cancel(own)
        assert group in made.groups
        assert store.get(own).state != State.CANCELLED.value
        assert migrations.cancel(own).state == State.CANCELLED.value
        assert not made.groups


def ignore(_event: Any) -> None:
    """Nobody listens."""


def test_who_was_cut_off_at_any_moment_makes_and_writes_nothing_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    nth = 1
    while play(tmp_path / str(nth), nth, monkeypatch):
        nth += 1
        assert nth < CUTS
    # Far more often than it has steps.
    assert nth > 50
