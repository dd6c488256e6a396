"""Pairs that serve several volumes at a time, and what one of them may do to the others.

Migrations are real and run in threads; clouds and agents are in memory, so that any call can
fail, wait, and be the controller's last. tests/integration/test_pool_batch.py has real ones.
"""

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from blockferry.errors import BlockferryError, BusyError, UnreachableError
from blockferry_controller.engine.pair_records import PairState
from blockferry_controller.engine.records import State
from blockferry_controller.engine.state import StateStore
from blockferry_controller.migration import keyring
from blockferry_controller.migration.ending import keys_path
from blockferry_controller.migration.steps import reach, recover
from tests.integration.test_pool import MOMENTS, Yard
from tests.torture.clouds import plain_engine
from tests.torture.matrix import Fault
from tests.torture.world import SIDES, Killed, World

pytestmark = pytest.mark.timeout(120)
WAIT_SECONDS = 60.0


@dataclass
class Gate:
    """A call that waits: the `nth` of a verb on a side."""

    side: str
    verb: str
    nth: int
    reached: threading.Event = field(default_factory=threading.Event)
    opened: threading.Event = field(default_factory=threading.Event)


@dataclass
class GatedWorld(World):
    """A world in which calls may have to wait."""

    gates: list[Gate] = field(default_factory=list)
    counted: threading.Lock = field(default_factory=threading.Lock)

    @contextmanager
    def strike(self, side: str, verb: str, *, is_cloud: bool = False) -> Iterator[None]:
        with self.counted:
            nth = self.calls[side, verb] + 1
        for gate in self.gates:
            if (gate.side, gate.verb, gate.nth) == (side, verb, nth) and not gate.reached.is_set():
                # Counted before it waits, so that the next is the next.
                gate.reached.set()
                self.calls[side, verb] += 1
                assert gate.opened.wait(WAIT_SECONDS)
                yield
                return
        with super().strike(side, verb, is_cloud=is_cloud):
            yield


@dataclass
class Shop(Yard):
    """A yard in which several volumes move at a time."""

    world: GatedWorld = field(default_factory=GatedWorld)
    pool: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(8))

    def start(self, own: str) -> "Future[Any]":
        """Move it, in a thread."""
        return self.pool.submit(self.migrations.run, own)

    def held_at(self, side: str, verb: str, nth: int = 1) -> tuple[str, "Future[Any]", Gate]:
        """A new volume that moves, and waits at a call."""
        gate = Gate(side, verb, self.world.calls[side, verb] + nth)
        self.world.gates.append(gate)
        own = self.order(f"held at {verb} {len(self.world.gates)}")
        running = self.start(own)
        until(lambda: gate.reached.is_set() or running.done())
        assert not running.done(), running.exception()
        return own, running, gate

    def killed_in_the_copy(self, name: str) -> str:
        """A new volume whose controller is killed once its jobs are there."""
        nth = self.world.calls["source", "start_job"] + 2
        self.world.faults = [Fault("source", "start_job", nth, True, "killed")]
        own = self.order(name)
        with pytest.raises(Killed):
            self.migrations.run(own)
        return own

    def attached(self, side: str) -> list[str]:
        """Names of contents that are attached to anything."""
        cloud = self.world.clouds[side]
        found = [one.id for one in cloud.volumes.values() if one.attachments]
        return sorted(self.world.link.volumes[own].name for own in found)


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + WAIT_SECONDS
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.fixture
def shop(tmp_path: Path) -> Iterator[Shop]:
    with closing(StateStore.open(f"sqlite:///{tmp_path}/state.db")) as store, plain_engine():
        stage = Shop(store, lanes=3)
        yield stage
        for gate in stage.world.gates:
            gate.opened.set()
        stage.pool.shutdown()


def test_several_volumes_cross_at_once_through_one_pair(shop: Shop) -> None:
    running = [shop.start(shop.order(name)) for name in ("a", "b", "c")]
    for one in running:
        one.result(WAIT_SECONDS)
    assert shop.world.boots == {"source": 1, "destination": 1}
    assert shop.arrived() == ["a", "b", "c"]
    assert (shop.pair.state, shop.pair.served) == (PairState.FREE, 3)
    assert {lane.epoch for lane in shop.pair.lanes} == {1}
    assert shop.left() == [shop.pair.id]
    shop.end_all()


def test_each_lane_has_agents_and_keys_of_its_own(shop: Shop) -> None:
    """And finds its own volume, by its serial, among those that are attached."""
    held = [shop.held_at("source", "start_job") for _ in range(3)]
    for side in SIDES:
        assert len(shop.attached(side)) == 3
    ids = {agent.identity.migration_id for agent in set(shop.world.link.agents.values())}
    assert ids == {shop.pair.lane_id(number) for number in range(3)}
    assert len({keys_path(shop.store, own).read_bytes() for own in ids}) == 3
    for side in SIDES:
        (server,) = shop.world.clouds[side].servers
        (group,) = shop.world.clouds[side].groups.values()
        assert {(rule.port, rule.ports) for rule in group.rules} == {(7443, 3)}
        assert {
            address.rsplit(":", 1)[1]
            for address, agent in shop.world.link.agents.items()
            if getattr(agent, "server_id", "") == server
        } == {"7443", "7444", "7445"}
    for _, running, gate in held:
        gate.opened.set()
        running.result(WAIT_SECONDS)
    shop.end_all()


def test_of_two_that_come_at_once_one_boots_and_the_other_waits(shop: Shop) -> None:
    first, running, gate = shop.held_at("destination", "ensure_server")
    second = shop.start(shop.order("b"))
    time.sleep(0.3)
    assert shop.pair.booting == first
    assert not second.done()
    gate.opened.set()
    for one in (running, second):
        one.result(WAIT_SECONDS)
    assert shop.world.boots == {"source": 1, "destination": 1}
    shop.end_all()


@pytest.mark.parametrize("late", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("verb", ["ensure_security_group", "ensure_port", "ensure_server"])
@pytest.mark.parametrize("kind", ["killed", "error"])
def test_where_the_one_that_boots_ends_another_goes_on(
    shop: Shop, verb: str, kind: str, late: bool
) -> None:
    shop.world.faults = [Fault("destination", verb, 1, late, kind)]
    orders = [shop.order(name) for name in ("a", "b", "c")]
    running = {own: shop.start(own) for own in orders}
    ends = {own: one.exception(WAIT_SECONDS) for own, one in running.items()}
    (failed,) = [own for own, end in ends.items() if end is not None]
    assert len(shop.world.struck) == 1
    assert isinstance(ends[failed], Killed if kind == "killed" else UnreachableError)
    assert shop.world.boots == {"source": 1, "destination": 1}
    assert len(shop.arrived()) == 2 + (len(shop.world.clouds["destination"].volumes) == 3)
    shop.migrations.run(failed)
    assert shop.arrived() == ["a", "b", "c"]
    shop.end_all()


def test_one_that_fails_leaves_the_others_at_work(shop: Shop) -> None:
    shop.most = 2
    held, running, gate = shop.held_at("destination", "start_job")
    pair = shop.pair.id
    nth = shop.world.calls["destination", "start_job"] + 1
    shop.world.faults = [Fault("destination", "start_job", nth, False, "error")]
    failing = shop.order("b")
    with pytest.raises(BlockferryError):
        shop.migrations.run(failing)
    assert (shop.pair.state, [lane.migration_id for lane in shop.pair.guests]) == (
        PairState.DRAINING, [held],
    )  # fmt: skip
    for side in SIDES:
        assert len(shop.attached(side)) == 1, "what failed is off, the other is not touched"
    assert not running.done()
    # Nobody comes to it any more.
    shop.migrations.run(failing)
    assert shop.world.boots == {"source": 2, "destination": 2}
    gate.opened.set()
    running.result(WAIT_SECONDS)
    assert len(shop.arrived()) == 2
    found = shop.store.pairs.find(pair)
    assert found is not None
    assert found.state is PairState.ENDED, "the last one out has deleted it"
    assert not keyring.there(shop.store, found)
    assert shop.left() == [shop.pair.id]
    shop.end_all()


def test_no_more_pairs_than_may_be_while_one_ends(shop: Shop) -> None:
    _, running, gate = shop.held_at("destination", "start_job")
    nth = shop.world.calls["destination", "start_job"] + 1
    shop.world.faults = [Fault("destination", "start_job", nth, False, "error")]
    failing = shop.order("b")
    with pytest.raises(BlockferryError):
        shop.migrations.run(failing)
    with pytest.raises(BusyError) as caught:
        shop.migrations.run(failing)
    assert caught.value.reason == "PAIRS_TAKEN"
    gate.opened.set()
    running.result(WAIT_SECONDS)
    shop.migrations.run(failing)
    assert len(shop.arrived()) == 2
    shop.end_all()


@pytest.mark.parametrize("side", SIDES)
def test_an_instance_that_is_lost_is_replaced_once_for_all(shop: Shop, side: str) -> None:
    held = [shop.held_at(side, "watch_job") for _ in range(3)]
    shop.world.lose(side)
    for _, _, gate in held:
        gate.opened.set()
    for _, running, _ in held:
        running.result(WAIT_SECONDS)
    assert shop.world.boots[side] == 2
    assert shop.world.boots[SIDES[1 - SIDES.index(side)]] == 1
    assert len(shop.arrived()) == 3
    assert (shop.pair.state, shop.pair.served) == (PairState.FREE, 3)
    shop.end_all()


def quickly(monkeypatch: pytest.MonkeyPatch, agree_seconds: float) -> None:
    """Give agents up after a moment."""
    monkeypatch.setattr(recover, "AGAIN_SECONDS", 0.3)
    monkeypatch.setattr(reach, "AGAIN_SECONDS", 0.3)
    monkeypatch.setattr(recover, "AGREE_SECONDS", agree_seconds)


def test_an_instance_that_answers_nobody_is_replaced_when_all_say_so(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    quickly(monkeypatch, 30.0)
    held = [shop.held_at("destination", "watch_job") for _ in range(3)]
    for agent in set(shop.world.link.agents.values()):
        if agent.identity.role.value == "sink":
            agent.down = True
    for _, _, gate in held:
        gate.opened.set()
    for _, running, _ in held:
        running.result(WAIT_SECONDS)
    assert shop.world.boots == {"source": 1, "destination": 2}
    assert len(shop.arrived()) == 3
    shop.end_all()


def test_one_silent_agent_does_not_cost_the_others_their_instance(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    quickly(monkeypatch, 0.5)
    shop.most = 2
    silent, failing, gate = shop.held_at("destination", "watch_job")
    _, running, other_gate = shop.held_at("destination", "watch_job")
    lane = shop.store.pairs.held_by(silent)
    assert lane is not None
    for agent in shop.world.link.agents.values():
        if agent.identity.migration_id == lane.id and agent.identity.role.value == "sink":
            agent.down = True
    gate.opened.set()
    error = failing.exception(WAIT_SECONDS)
    assert isinstance(error, UnreachableError)
    assert error.reason == "INSTANCE_SHARED"
    assert shop.world.boots == {"source": 1, "destination": 1}
    assert shop.pair.state is PairState.DRAINING
    other_gate.opened.set()
    running.result(WAIT_SECONDS)
    shop.migrations.run(silent)
    assert len(shop.arrived()) == 2
    shop.end_all()


def test_an_attachment_that_is_refused_beside_others_is_made_elsewhere(shop: Shop) -> None:
    """An instance takes only so many disks, and no cloud says how many."""
    shop.most = 2
    _, running, gate = shop.held_at("source", "start_job")
    from blockferry.errors import PreconditionError  # noqa: PLC0415

    refused = PreconditionError("ATTACH_FAILED", "No more available PCI slots.")
    shop.world.clouds["source"].fail("attach_volume", refused)
    own = shop.order("b")
    with pytest.raises(UnreachableError) as caught:
        shop.migrations.run(own)
    assert caught.value.reason == "INSTANCE_SHARED"
    assert "lower `lanes`" in caught.value.message
    assert shop.world.boots == {"source": 1, "destination": 1}
    shop.migrations.run(own)
    gate.opened.set()
    running.result(WAIT_SECONDS)
    assert len(shop.arrived()) == 2
    shop.end_all()


def test_one_that_is_cancelled_after_a_kill_takes_its_volumes_along(shop: Shop) -> None:
    _, running, gate = shop.held_at("destination", "watch_job")
    own = shop.killed_in_the_copy("b")
    for side in SIDES:
        assert len(shop.attached(side)) == 2
    lane = shop.store.pairs.held_by(own)
    assert lane is not None
    shop.migrations.cancel(own)
    for side in SIDES:
        assert len(shop.attached(side)) == 1
        assert len(shop.world.clouds[side].servers) == 1
    for agent in set(shop.world.link.agents.values()):
        if agent.identity.migration_id == lane.id:
            assert agent.running() == []
    assert shop.store.get(own).state == State.CANCELLED.value
    gate.opened.set()
    running.result(WAIT_SECONDS)
    assert shop.pairs == []
    assert shop.left() == []


def test_one_whose_keys_are_elsewhere_leaves_the_others_at_work(shop: Shop) -> None:
    shop.most = 2
    _, running, gate = shop.held_at("destination", "watch_job")
    own = shop.killed_in_the_copy("b")
    lane = shop.store.pairs.held_by(own)
    assert lane is not None
    keys_path(shop.store, lane.id).unlink()
    shop.migrations.run(own)
    assert not running.done()
    assert shop.world.boots == {"source": 2, "destination": 2}
    gate.opened.set()
    running.result(WAIT_SECONDS)
    assert len(shop.arrived()) == 2
    shop.end_all()


@pytest.mark.parametrize("late", [False, True], ids=["before", "after"])
@pytest.mark.parametrize(
    ("side", "verb", "nth"), [one for one in MOMENTS if one[1] != "ensure_port"]
)
def test_a_controller_that_dies_beside_another_leaves_nothing_that_is_not_found(
    shop: Shop, side: str, verb: str, nth: int, late: bool
) -> None:
    """The others' lanes, instances and bytes are not touched by whoever takes up what it left."""
    _, running, gate = shop.held_at("destination", "watch_job")
    count = shop.world.calls[side, verb] + (1 if nth == 1 else 2)
    shop.world.faults = [Fault(side, verb, count, late, "killed")]
    moved = 0
    for name in ("a", "b"):
        own = shop.order(name)
        try:
            shop.migrations.run(own)
        except Killed:
            moved += 1
            assert {one.id for one in shop.pairs} >= {one for one in shop.left() if "pair-" in one}
            assert not running.done()
            shop.migrations.run(own)
    assert moved == len(shop.world.struck) == 1
    gate.opened.set()
    running.result(WAIT_SECONDS)
    assert shop.world.boots == {"source": 1, "destination": 1}
    assert len(shop.arrived()) == 3
    shop.end_all()


def test_cleanup_leaves_a_pair_in_which_one_is_at_work(shop: Shop) -> None:
    _, running, gate = shop.held_at("destination", "watch_job")
    own = shop.killed_in_the_copy("b")
    for agent in set(shop.world.link.agents.values()):
        if agent.identity.migration_id == shop.pair.lane_id(1):
            agent.down = True
    items, errors = shop.migrations.cleanup(SIDES, dry_run=False)
    assert errors == []
    assert {item.action for item in items if item.migration_id == shop.pair.id} == {"keep"}
    gate.opened.set()
    running.result(WAIT_SECONDS)
    shop.migrations.cancel(own)
    assert shop.left() == []


def test_keys_of_a_pair_that_never_came_to_be_are_destroyed(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who was to have it died between the keys and the row."""
    shop.move("a")
    lost = keys_path(shop.store, "pair-261127-aaaaaa-0")
    lost.write_bytes(b"keys")
    items, _ = shop.migrations.cleanup(SIDES, dry_run=False)
    assert lost.exists(), "it may be about to come to be"
    monkeypatch.setattr(keyring, "_ORPHANED_SECONDS", -1.0)
    shop.move("b")
    own = [keys_path(shop.store, shop.pair.lane_id(number)) for number in range(3)]
    items, _ = shop.migrations.cleanup((), dry_run=False)
    assert [(item.kind, item.migration_id) for item in items] == [("keys", "pair-261127-aaaaaa-0")]
    assert not lost.exists()
    assert all(path.exists() for path in own)
    shop.end_all()
