"""Pairs that serve one volume after another, and what may go wrong on the way.

Migrations are real; clouds and agents are in memory, so that any call can fail, and any
moment be the controller's last. tests/integration/test_pool_batch.py has the real ones.
"""

from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from msgspec.structs import replace

from blockferry.errors import BlockferryError, PreconditionError, UnreachableError
from blockferry.identity import Role
from blockferry.limits import GIB
from blockferry_controller.clouds.port import Flavor, ResourceKind
from blockferry_controller.engine.fleet_records import ItemRecord, ItemState
from blockferry_controller.engine.pair_records import PairRecord, PairState
from blockferry_controller.engine.state import StateStore
from blockferry_controller.events import Event
from blockferry_controller.migration import pool
from blockferry_controller.migration.service import Migrations
from blockferry_controller.spec import Endpoint, Kind, Pool, Spec
from tests.fakes.agent import Content
from tests.torture.clouds import plain_engine
from tests.torture.matrix import Fault
from tests.torture.world import SIDES, Killed, World

pytestmark = pytest.mark.timeout(120)


@dataclass
class Yard:
    """A world with several volumes, and the pairs that move them."""

    store: StateStore
    world: World = field(default_factory=World)
    events: list[Event] = field(default_factory=list)
    most: int = 1
    lanes: int = 1

    def volume(self, name: str) -> str:
        """The id of a new source volume."""
        made = self.world.clouds["source"].add_volume(name, GIB)
        self.world.link.volumes[made.id] = Content(GIB, GIB // 2, name)
        return made.id

    def order(self, name: str) -> str:
        """The id of a migration of a new volume, not begun."""
        spec = Spec(
            Kind.MIGRATE,
            Endpoint("source", self.volume(name)),
            Endpoint("destination"),
            controller_address="192.0.2.1",
            pool=Pool("shop", self.most, self.lanes),
        )
        return self.migrations.create(spec).id

    @property
    def migrations(self) -> Migrations:
        """A controller that has just begun."""
        return Migrations(self.store, self.world.connect, self.world.dial, self.events.append)

    def move(self, name: str) -> str:
        """Move a new volume; the migration's id."""
        own = self.order(name)
        self.migrations.run(own)
        return own

    @property
    def pairs(self) -> list[PairRecord]:
        return self.store.pairs.of("shop")

    @property
    def pair(self) -> PairRecord:
        (one,) = self.pairs
        return one

    def arrived(self) -> list[str]:
        """Contents at the destination."""
        volumes = self.world.clouds["destination"].volumes
        return sorted(self.world.link.volumes[own].name for own in volumes)

    def left(self) -> list[str]:
        """Whose resources both clouds hold, by their tags."""
        found = {
            one.tag.migration_id
            for cloud in self.world.clouds.values()
            for one in cloud.find_resources()
        }
        return sorted(found)

    def end_all(self) -> None:
        for one in self.pairs:
            assert self.migrations.end_pair(one.id)
        assert self.left() == []
        assert not list((self.store.directory / "authorities").glob("pair-*"))


def keys_of(yard: Yard, pair_id: str) -> list[Path]:
    return list((yard.store.directory / "authorities").glob(f"{pair_id}-*.pem"))


@pytest.fixture(params=[1, 3], ids=["one-lane", "three-lanes"])
def yard(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Yard]:
    with closing(StateStore.open(f"sqlite:///{tmp_path}/state.db")) as store, plain_engine():
        yield Yard(store, lanes=request.param)


def test_volumes_cross_one_after_another_through_one_pair(yard: Yard) -> None:
    for name in ("a", "b", "c"):
        yard.move(name)
        assert (yard.pair.state, yard.pair.guests) == (PairState.FREE, ())
        assert yard.left() == [yard.pair.id]
    assert yard.world.boots == {"source": 1, "destination": 1}
    # Lanes take turns, so that none grows old.
    times = 3 // len(yard.pair.lanes)
    assert {(lane.served, lane.epoch) for lane in yard.pair.lanes} == {(times, times)}
    assert yard.pair.served == 3
    assert yard.arrived() == ["a", "b", "c"]
    yard.end_all()


def test_who_takes_a_pair_asks_little_of_the_clouds(yard: Yard) -> None:
    """Nothing is made, and no door is shut and opened again."""
    yard.move("a")
    yard.world.calls.clear()
    yard.move("b")
    for side in SIDES:
        assert yard.world.calls[side, "ensure_security_group"] == 1
        assert yard.world.calls[side, "delete_server"] == 0
        (group,) = yard.world.clouds[side].groups.values()
        assert group.rules
        # The pair's row knows where it is met, and what there is of it.
        for verb in ("ensure_port", "ensure_floating_ip", "find_resources"):
            assert yard.world.calls[side, verb] == 0, verb
    assert [yard.world.calls[side, "quota"] for side in SIDES] == [0, 1]
    yard.end_all()


def test_the_next_pair_is_as_large_as_the_copies_before_wanted(
    yard: Yard, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes = [Flavor("n", "nano", 1, 1 << 30, 8 << 30), Flavor("l", "large", 4, 4 << 30, 8 << 30)]
    for cloud in yard.world.clouds.values():
        cloud.flavors = sizes

    def flavors() -> list[str]:
        servers = (server for side in SIDES for server in yard.world.clouds[side].servers.values())
        return [server.request.flavor_id for server in servers]

    # The source's instance had little to do; that of the destination was busy.
    efforts = iter((0.2, 2.5))
    monkeypatch.setattr(pool, "cores_used", lambda effort: next(efforts, None))
    own = yard.move("a")
    item = ItemRecord(0, "v", "v", 1, "all", ItemState.SUCCEEDED, {}, migration_id=own)
    yard.store.fleets.create("shop", ("source", "destination"), {}, {}, [item])
    assert flavors() == ["n", "n"]
    yard.move("b")
    assert flavors() == ["n", "n"], "it is there"
    yard.end_all()
    yard.move("c")
    assert flavors() == ["n", "l"]
    yard.end_all()


def test_a_free_pair_hears_that_it_is_wanted_and_serves_the_next(yard: Yard) -> None:
    yard.move("a")
    yard.world.calls.clear()
    yard.migrations.speak_to_pair(yard.pair.id)
    assert yard.world.calls == {("source", "describe"): 1, ("destination", "describe"): 1}
    yard.move("b")
    yard.migrations.speak_to_pair(yard.pair.id)
    assert (yard.world.boots, yard.pair.served) == ({"source": 1, "destination": 1}, 2)
    yard.end_all()


def test_a_pair_whose_instance_is_gone_does_not_hear_us(yard: Yard) -> None:
    yard.move("a")
    yard.world.lose("destination")
    with pytest.raises(UnreachableError):
        yard.migrations.speak_to_pair(yard.pair.id)
    for path in keys_of(yard, yard.pair.id):
        path.unlink()
    with pytest.raises(PreconditionError) as caught:
        yard.migrations.speak_to_pair(yard.pair.id)
    assert caught.value.reason == "PAIR_UNKNOWN_HERE"
    yard.end_all()


def test_of_one_migration_nothing_is_left_for_the_next(yard: Yard) -> None:
    yard.move("a")
    for agent in set(yard.world.link.agents.values()):
        used = agent.identity.migration_id.endswith("-0")
        assert agent.identity.epoch == 1 + used, "whoever had it is shut out already"
        assert (agent._works, agent._transfers) == ({}, {})
    for cloud in yard.world.clouds.values():
        assert not any(volume.attachments for volume in cloud.volumes.values())
    yard.end_all()


def test_one_alone_boots_its_own_and_deletes_it(yard: Yard) -> None:
    spec = Spec(
        Kind.MIGRATE,
        Endpoint("source", yard.volume("a")),
        Endpoint("destination"),
        controller_address="192.0.2.1",
    )
    yard.migrations.run(yard.migrations.create(spec).id)
    assert yard.store.pairs.all() == []
    assert yard.left() == []


@pytest.mark.parametrize("side", SIDES)
def test_a_pair_that_was_lost_while_it_was_free_is_booted_anew(yard: Yard, side: str) -> None:
    yard.move("a")
    yard.world.lose(side)
    yard.move("b")
    assert yard.world.boots[side] == 2
    assert yard.arrived() == ["a", "b"]
    assert yard.pair.served == 2
    yard.end_all()


def test_a_pair_that_failed_of_something_serves_nobody_any_more(yard: Yard) -> None:
    yard.move("a")
    before = yard.pair.id
    yard.world.calls.clear()
    yard.world.faults = [Fault("destination", "start_job", 1, False, "error")]
    own = yard.order("b")
    with pytest.raises(BlockferryError):
        yard.migrations.run(own)
    assert yard.pairs == []
    found = yard.store.pairs.find(before)
    assert found is not None
    assert found.state is PairState.ENDED
    assert not keys_of(yard, before)
    yard.migrations.run(own)
    assert yard.pair.id != before
    assert yard.arrived() == ["a", "b"]
    yard.end_all()


@pytest.mark.parametrize("side", SIDES)
def test_a_pair_whose_agent_does_not_forget_is_not_given_back(yard: Yard, side: str) -> None:
    own = yard.order("a")
    yard.world.faults = [Fault(side, "vacate", 1, True, "error")]
    yard.migrations.run(own)
    assert yard.world.struck
    assert yard.pairs == []
    assert yard.left() == []
    assert yard.arrived() == ["a"]


def test_a_volume_that_may_not_be_moved_costs_no_pair(yard: Yard) -> None:
    yard.move("a")
    own = yard.order("b")
    volumes = yard.world.clouds["source"].volumes
    (volume,) = [one for one in volumes.values() if one.name == "b"]
    volumes[volume.id] = replace(volume, status="error")
    with pytest.raises(BlockferryError):
        yard.migrations.run(own)
    assert yard.pair.state is PairState.FREE
    yard.move("c")
    assert yard.world.boots == {"source": 1, "destination": 1}
    yard.end_all()


def test_a_free_pair_takes_no_quota_of_who_gets_it(yard: Yard) -> None:
    yard.move("a")
    for cloud in yard.world.clouds.values():
        cloud.quotas = {**cloud.quotas, "instances": len(cloud.servers)}
    yard.move("b")
    assert yard.arrived() == ["a", "b"]
    yard.end_all()


MOMENTS = [
    ("source", "ensure_port", 1), ("source", "ensure_security_group", 3),
    ("destination", "ensure_server", 2),
    ("source", "describe", 4), ("destination", "create_signing_request", 2),
    ("source", "adopt_identity", 2), ("destination", "attach_volume", 2),
    ("source", "start_job", 2), ("destination", "vacate", 1), ("source", "vacate", 1),
    ("destination", "detach_volume", 1), ("source", "detach_volume", 2),
    ("destination", "release_volume", 1), ("destination", "release_volume", 2),
]  # fmt: skip
"""In the first volume's way and the second's: taking, handing over, giving back."""


@pytest.mark.parametrize("late", [False, True], ids=["before", "after"])
@pytest.mark.parametrize(("side", "verb", "nth"), MOMENTS)
def test_a_controller_that_dies_leaves_nothing_that_is_not_found(
    yard: Yard, side: str, verb: str, nth: int, late: bool
) -> None:
    yard.world.faults = [Fault(side, verb, nth, late, "killed")]
    for name in ("a", "b"):
        own = yard.order(name)
        try:
            yard.migrations.run(own)
        except Killed:
            assert {one.id for one in yard.pairs} >= {one for one in yard.left() if "pair-" in one}
            yard.migrations.run(own)
    assert len(yard.world.struck) == 1
    assert yard.arrived() == ["a", "b"]
    assert {one.state for one in yard.pairs} == {PairState.FREE}
    yard.end_all()


def test_who_resumes_goes_on_from_what_it_knows_of_its_pair_itself(yard: Yard) -> None:
    yard.move("a")
    yard.world.calls.clear()
    yard.world.faults = [Fault("source", "start_job", 2, True, "killed")]
    own = yard.order("b")
    with pytest.raises(Killed):
        yard.migrations.run(own)
    assert yard.store.get(own).facts["source_met"] == yard.pair.facts["source_met"]
    yard.store.set_facts(own, source_met="its new instance")
    again = pool.take(yard.store, yard.store.get(own), 1, yard.migrations.new_id)
    assert again is not None
    assert yard.store.get(own).facts["source_met"] == "its new instance"


def test_the_pair_of_a_migration_that_is_cancelled_is_ended(yard: Yard) -> None:
    yard.world.faults = [Fault("source", "start_job", 1, True, "killed")]
    own = yard.order("a")
    with pytest.raises(Killed):
        yard.migrations.run(own)
    yard.migrations.cancel(own)
    assert yard.pairs == []
    assert yard.left() == []
    assert not list((yard.store.directory / "authorities").glob("*"))


def test_a_pair_whose_keys_are_elsewhere_is_ended_before_another_is_taken(yard: Yard) -> None:
    yard.world.faults = [Fault("source", "start_job", 1, True, "killed")]
    own = yard.order("a")
    with pytest.raises(Killed):
        yard.migrations.run(own)
    before = yard.pair.id
    for path in keys_of(yard, before):
        path.unlink()
    yard.migrations.run(own)
    assert yard.pair.id != before
    assert yard.left() == [yard.pair.id]
    assert yard.arrived() == ["a"]
    yard.end_all()


def test_what_ends_halfway_is_ended_by_whoever_comes_next(yard: Yard) -> None:
    yard.move("a")
    yard.world.calls.clear()
    yard.world.faults = [Fault("destination", "delete_port", 1, False, "error")]
    with pytest.raises(BlockferryError):
        yard.migrations.end_pair(yard.pair.id)
    assert yard.pair.state is PairState.ENDING
    kinds = {one.kind for one in yard.world.clouds["destination"].find_resources()}
    assert ResourceKind.PORT in kinds
    yard.move("b")
    yard.end_all()
    assert yard.arrived() == ["a", "b"]


def test_cleanup_removes_free_pairs_with_their_keys(yard: Yard) -> None:
    yard.move("a")
    own = yard.pair.id
    would, errors = yard.migrations.cleanup(SIDES, dry_run=True)
    assert errors == []
    assert {item.action for item in would} == {"delete"}
    assert yard.left() == [own]
    done, errors = yard.migrations.cleanup(SIDES, dry_run=False)
    assert errors == []
    assert {(item.migration_id, item.action) for item in done} == {(own, "deleted")}
    assert {item.kind for item in done} == {"server", "port", "security group", "keys"}
    assert yard.pairs == []
    yard.end_all()


def test_cleanup_leaves_a_pair_at_work_alone_and_takes_one_that_is_silent(yard: Yard) -> None:
    yard.world.faults = [Fault("source", "start_job", 2, True, "killed")]
    own = yard.order("a")
    with pytest.raises(Killed):
        yard.migrations.run(own)
    before = yard.pair.id
    agents = set(yard.world.link.agents.values())
    assert any(agent.running() for agent in agents if agent.identity.role is Role.SINK)
    items, _ = yard.migrations.cleanup(SIDES, dry_run=False)
    assert {item.action for item in items} == {"keep"}, items
    for agent in agents:
        agent.down = True
    items, _ = yard.migrations.cleanup(SIDES, dry_run=False)
    assert {item.action for item in items if item.kind == "server"} == {"deleted"}
    assert yard.pairs == []
    yard.migrations.run(own)
    assert yard.pair.id != before
    assert yard.arrived() == ["a"]
    yard.end_all()
