"""A batch: what runs, what waits and why, and that nothing is lost or done twice."""

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

import pytest
from msgspec.structs import replace
from sqlalchemy.exc import OperationalError

from blockferry.errors import (
    BlockferryError,
    BusyError,
    CancelledError,
    CapacityError,
    FleetError,
    PreconditionError,
    UnreachableError,
)
from blockferry.limits import GIB, MIB
from blockferry_controller.engine.fleet_records import FleetRecord, ItemRecord, ItemState
from blockferry_controller.engine.lease import Holder
from blockferry_controller.engine.state import StateStore
from blockferry_controller.events import Event, Noted
from blockferry_controller.fleet import outcome
from blockferry_controller.fleet.conductor import Conductor
from blockferry_controller.fleet.founding import found
from blockferry_controller.fleet.planning import Settings
from blockferry_controller.fleet.worker import Worker
from blockferry_controller.spec import Endpoint, Kind, Spec
from tests.fakes.ferry import FakeFerry
from tests.postgres import PostgresServer
from tests.unit.controller.fleet.stage import NOW, Stage


@dataclass
class Batch:
    """A fleet on the stage and a driver of it."""

    stage: Stage
    ferry: FakeFerry
    now: datetime = NOW
    events: list[Event] = field(default_factory=list)
    thread: threading.Thread | None = None
    ended: FleetRecord | BaseException | None = None
    driver: Worker | None = None

    def found(self, **keys: Any) -> None:
        self.stage.keys = {**self.stage.keys, **keys}
        found(self.stage.store.fleets, self.stage.plan(), Settings())

    def drive(self) -> FleetRecord:
        self.driver = self.worker()
        return self.driver.run("shop")

    def worker(self, room: int | None = None) -> Worker:
        return Worker(
            self.stage.store, self.ferry, self.events.append, now=lambda: self.now,
            tick_seconds=0.005, room=room,
        )  # fmt: skip

    @contextmanager
    def driving(self) -> Iterator[None]:
        """Drive in a thread; the block ends with it."""
        self.thread = threading.Thread(target=self._in_thread)
        self.thread.start()
        try:
            yield
        except BaseException:
            if self.driver is not None:
                self.driver.interrupt()
            raise
        finally:
            self.ferry.let_go()
            self.thread.join(20)
            assert not self.thread.is_alive()

    def _in_thread(self) -> None:
        try:
            self.ended = self.drive()
        except BlockferryError as error:
            self.ended = error

    def item(self, name: str) -> ItemRecord:
        return next(one for one in self.stage.store.fleets.items("shop") if one.name == name)

    def states(self) -> dict[str, str]:
        return {one.name: one.state.value for one in self.stage.store.fleets.items("shop")}

    def until(self, condition: Callable[[], object]) -> None:
        deadline = time.monotonic() + 20
        while not condition():
            assert time.monotonic() < deadline, self.stage.store.fleets.items("shop")
            assert self.thread is None or self.thread.is_alive() or condition(), self.ended
            time.sleep(0.005)

    def ran(self) -> list[str]:
        return [self.stage.east.volumes[volume].name for volume in self.ferry.ran]


@pytest.fixture
def batch(stage: Stage) -> Batch:
    return Batch(stage, FakeFerry(stage.store, {"east": stage.east, "west": stage.west}))


def add(batch: Batch, *names: str, size: int = GIB, **fields: Any) -> None:
    for name in names:
        batch.stage.east.add_volume(name, size, **fields)


def fail(batch: Batch, name: str, *errors: BlockferryError) -> None:
    batch.ferry.script[batch.stage.east.find_volume(name).id] = list(errors)


SPEC = Spec(Kind.MIGRATE, Endpoint("east", "v"), Endpoint("west"))
DEAD = UnreachableError("AGENT_SILENT", "no answer")
BROKEN = PreconditionError("VOLUME_STATE", "is broken")


def test_all_are_moved_largest_first_within_the_limit(batch: Batch) -> None:
    for at in range(9):
        add(batch, f"v{at}", size=(at + 1) * GIB)
    batch.found(limits={"concurrency": 2})
    assert batch.drive().state == "SUCCEEDED"
    assert set(batch.states().values()) == {"SUCCEEDED"}
    assert batch.ferry.most_at_once <= 2
    assert sorted(batch.ran()) == [f"v{at}" for at in range(9)]
    assert set(batch.ran()[:2]) == {"v7", "v8"}
    assert batch.ran()[-1] in ("v0", "v1")


def test_what_waits_holds_nothing_and_says_why(batch: Batch) -> None:
    add(batch, "a", "b", size=2 * GIB)
    add(batch, "c")
    batch.found(limits={"concurrency": 2})
    batch.ferry.hold()
    with batch.driving():
        batch.until(lambda: batch.item("c").why)
        assert batch.item("c").why == "FLEET_LIMIT"
        assert batch.item("c").reason == "2 volumes move, as limits.concurrency says"
        assert not batch.item("c").migration_id
        batch.until(lambda: len(batch.ferry.running) == 2)
    assert batch.item("c").state is ItemState.SUCCEEDED
    assert (batch.item("c").why, batch.item("c").reason) == ("", "")


def test_skipped_and_refused_are_not_run_and_refused_is_no_success(batch: Batch) -> None:
    add(batch, "good", "skipped")
    add(batch, "bad", status="error")
    batch.found(volumes={"skipped": {"skip": "not now"}})
    with pytest.raises(FleetError) as raised:
        batch.drive()
    assert raised.value.reason == "FLEET_FAILED"
    assert batch.states() == {"good": "SUCCEEDED", "skipped": "SKIPPED", "bad": "FAILED"}
    assert batch.item("bad").why == "PLAN_REFUSED"
    assert batch.ran() == ["good"]


def test_what_may_pass_is_tried_again_and_what_may_not_is_not(batch: Batch) -> None:
    add(batch, "flaky", "dead", "broken")
    fail(batch, "flaky", DEAD)
    fail(batch, "dead", DEAD, DEAD, DEAD)
    fail(batch, "broken", BROKEN)
    batch.found(attempts=2)
    with batch.driving():
        batch.until(lambda: batch.item("flaky").why == "RETRY" and batch.item("dead").attempts)
        assert "attempt 1 of 2 failed of AGENT_SILENT" in batch.item("flaky").reason
        assert batch.ran().count("flaky") == 1
        batch.now += timedelta(minutes=1)
    assert batch.states() == {"flaky": "SUCCEEDED", "dead": "FAILED", "broken": "FAILED"}
    assert sorted(batch.ran()) == ["broken", "dead", "dead", "flaky", "flaky"]
    assert isinstance(batch.ended, FleetError)


def test_a_quota_that_is_used_up_is_waited_for_and_counts_as_no_attempt(batch: Batch) -> None:
    add(batch, "a")
    fail(batch, "a", *[CapacityError("QUOTA_CORES", "0 cores left")] * 3)
    batch.found(attempts=1)
    with batch.driving():
        for tries in (1, 2, 3):
            batch.until(lambda tries=tries: len(batch.ran()) == tries)  # type: ignore[misc]
            batch.until(lambda: batch.item("a").state is ItemState.WAITING)
            assert (batch.item("a").why, batch.item("a").attempts) == ("QUOTA", 0)
            batch.now += timedelta(minutes=1)
    assert batch.item("a").state is ItemState.SUCCEEDED


def test_a_quota_lowered_under_our_feet_holds_back_what_has_not_begun(batch: Batch) -> None:
    add(batch, "a", "b")
    batch.found(limits={"concurrency": 5})
    batch.stage.west.quotas = {**batch.stage.west.quotas, "instances": 0}
    with batch.driving():
        batch.until(lambda: batch.item("b").why == "QUOTA")
        assert "the quota of west leaves 0 instances, 1 needed" in batch.item("a").reason
        assert not batch.ran()
        batch.stage.west.quotas = {**batch.stage.west.quotas, "instances": 9}
        batch.now += timedelta(minutes=1)
    assert set(batch.states().values()) == {"SUCCEEDED"}


@pytest.fixture
def decisions(monkeypatch: pytest.MonkeyPatch) -> list[Conductor]:
    """One more for each time that a conductor begins to decide."""
    begun: list[Conductor] = []
    step = Conductor.step

    def counted(conductor: Conductor) -> bool:
        begun.append(conductor)
        return step(conductor)

    monkeypatch.setattr(Conductor, "step", counted)
    return begun


def test_an_end_has_quotas_read_again_for_nobody(batch: Batch, decisions: list[Conductor]) -> None:
    add(batch, "a", "b", size=2 * GIB)
    add(batch, "c")
    batch.found(limits={"concurrency": 2})
    reads = batch.stage.west.verbs.count("quota")
    batch.ferry.hold()
    with batch.driving():
        batch.until(lambda: len(batch.ferry.running) == 2)
        begun = len(decisions)
        batch.until(lambda: len(decisions) > begun + 1)
        # Sooner than quotas are read in any case, later than they are for who waits for them.
        batch.now += timedelta(seconds=5)
    assert set(batch.states().values()) == {"SUCCEEDED"}
    assert batch.stage.west.verbs.count("quota") - reads == 1


def test_an_end_has_quotas_read_soon_for_who_waits_for_them(batch: Batch) -> None:
    add(batch, "a", "b", size=2 * GIB)
    add(batch, "c")
    batch.found(limits={"concurrency": 2})
    reads = batch.stage.west.verbs.count("quota")
    batch.ferry.hold()
    with batch.driving():
        batch.until(lambda: len(batch.ferry.running) == 2)
        batch.stage.west.quotas = {**batch.stage.west.quotas, "instances": 0}
        batch.now += timedelta(seconds=31)
        batch.until(lambda: batch.stage.west.verbs.count("quota") - reads == 2)
        batch.ferry.let_go()
        batch.until(lambda: batch.item("c").why == "QUOTA")
        batch.stage.west.quotas = {**batch.stage.west.quotas, "instances": 9}
        batch.now += timedelta(seconds=5)
        batch.until(lambda: "c" in batch.ran())


def test_what_has_only_just_begun_is_held_against_the_quota_of_before(
    batch: Batch, decisions: list[Conductor]
) -> None:
    add(batch, "a", size=2 * GIB)
    add(batch, "b")
    batch.found(limits={"concurrency": 2})
    batch.stage.west.quotas = {**batch.stage.west.quotas, "instances": 1}
    batch.ferry.hold()
    with batch.driving():
        batch.until(lambda: batch.ferry.running)
        for seconds in (0, 31, 0):
            begun = len(decisions)
            batch.now += timedelta(seconds=seconds)
            batch.until(lambda begun=begun: len(decisions) > begun + 1)  # type: ignore[misc]
            assert batch.ran() == ["a"]
            assert "leaves 0 instances, 1 needed" in batch.item("b").reason
        # The next reading has it in: what is left then is left for others.
        own = batch.item("a").migration_id
        epoch = batch.stage.store.get(own).epoch
        batch.stage.store.add_step(own, epoch, "volume", 0.1, "made")
        batch.now += timedelta(seconds=31)
        batch.until(lambda: batch.ran() == ["a", "b"])


WAVES: list[dict[str, Any]] = [{"name": "first", "select": {"names": "a*"}}, {"name": "rest"}]


def gated(**gate: Any) -> list[dict[str, Any]]:
    return [WAVES[0], {"name": "rest", "gate": gate}]


def test_waves_go_one_after_another(batch: Batch) -> None:
    add(batch, "a1", "a2")
    add(batch, "b1", size=9 * GIB)
    batch.found(waves=WAVES, limits={"concurrency": 9})
    batch.ferry.hold()
    with batch.driving():
        batch.until(lambda: batch.item("b1").why)
        assert (batch.item("b1").why, batch.item("b1").reason) == (
            "WAVE",
            "wave first comes before",
        )
    assert batch.ran()[-1] == "b1"


def test_a_wave_waits_for_its_approval(batch: Batch) -> None:
    add(batch, "a", "b")
    batch.found(waves=gated(approval=True))
    with batch.driving():
        batch.until(lambda: batch.item("b").why == "GATE")
        assert batch.item("b").reason == "waits for `blockferry approve shop rest`"
        assert batch.ran() == ["a"]
        batch.stage.store.fleets.want("shop", "approved:rest", True)
    assert batch.item("b").state is ItemState.SUCCEEDED


def test_a_gate_that_failures_closed_ends_the_batch_until_approved(batch: Batch) -> None:
    add(batch, "a1", "a2", "b")
    fail(batch, "a1", BROKEN)
    batch.found(waves=gated(failures_below="50%"))
    with pytest.raises(FleetError) as raised:
        batch.drive()
    assert raised.value.reason == "FLEET_STOPPED"
    assert "1 of 2 of the wave before failed, not below 50%" in raised.value.message
    assert batch.item("b").state is ItemState.WAITING
    batch.stage.store.fleets.want("shop", "approved:rest", True)
    with pytest.raises(FleetError, match="1 of 3 volumes"):
        batch.drive()
    assert batch.item("b").state is ItemState.SUCCEEDED


def test_a_gate_that_few_failures_leave_open(batch: Batch) -> None:
    add(batch, "a1", "a2", "a3", "b")
    fail(batch, "a1", BROKEN)
    batch.found(waves=gated(failures_below="50%"))
    with pytest.raises(FleetError, match="1 of 4"):
        batch.drive()
    assert batch.item("b").state is ItemState.SUCCEEDED


def test_a_breaker_stops_the_wave_and_running_it_again_sets_it_again(batch: Batch) -> None:
    add(batch, "v1", "v2", size=3 * GIB)
    add(batch, "v3", "v4", "v5")
    for name in ("v1", "v2"):
        fail(batch, name, BROKEN)
    batch.found(breaker={"failures": 2, "within": "10m"}, limits={"concurrency": 1})
    with pytest.raises(FleetError) as raised:
        batch.drive()
    assert "2 volumes of wave all failed of VOLUME_STATE" in raised.value.message
    assert len(batch.ran()) == 2
    batch.now += timedelta(seconds=1)
    with pytest.raises(FleetError, match="2 of 5 volumes"):
        batch.drive()
    assert sorted(batch.ran()) == ["v1", "v2", "v3", "v4", "v5"]


def test_failures_of_different_reasons_trip_no_breaker(batch: Batch) -> None:
    add(batch, "v1", "v2", "v3")
    fail(batch, "v1", BROKEN)
    fail(batch, "v2", PreconditionError("OTHER", "of another reason"))
    batch.found(breaker={"failures": 2}, limits={"concurrency": 1})
    with pytest.raises(FleetError, match="2 of 3 volumes"):
        batch.drive()


NIGHT = {"open": [{"from": "11:00", "to": "13:00"}]}


def test_a_window_that_closes_pauses_what_runs_without_loss(batch: Batch) -> None:
    add(batch, "a", "b")
    batch.found(windows=NIGHT, limits={"concurrency": 1})
    batch.ferry.hold()
    with batch.driving():
        batch.until(lambda: batch.ferry.running)
        batch.now = NOW + timedelta(hours=1)
        batch.until(lambda: batch.item("a").why == batch.item("b").why == "WINDOW")
        batch.until(lambda: set(batch.states().values()) == {"WAITING"})
        assert "the window opens Sat 21 Nov 11:00 UTC" in batch.item("b").reason
        assert not batch.ferry.running
        batch.now = NOW + timedelta(hours=23)
        batch.ferry.let_go()
    assert set(batch.states().values()) == {"SUCCEEDED"}
    # What had begun went on first, as the same migration.
    assert batch.ran()[0] == batch.ran()[1]
    assert batch.stage.store.listing.count() == 2


def test_or_lets_it_run_out_and_begins_nothing(batch: Batch) -> None:
    add(batch, "a", "b")
    batch.found(windows={**NIGHT, "at_end": "run-out"}, limits={"concurrency": 1})
    batch.ferry.hold()
    with batch.driving():
        batch.until(lambda: batch.ferry.running)
        batch.now = NOW + timedelta(hours=1)
        batch.until(lambda: "WINDOW" in (batch.item("a").why, batch.item("b").why))
        assert batch.ferry.running
        batch.ferry.let_go()
        batch.until(lambda: not batch.ferry.running)
        batch.until(lambda: sorted(batch.states().values()) == ["SUCCEEDED", "WAITING"])
        batch.now = NOW + timedelta(hours=23)
    assert len(batch.ran()) == 2


def test_near_the_end_nothing_new_begins_and_what_runs_goes_on(batch: Batch) -> None:
    add(batch, "a")
    add(batch, "b")
    batch.found(windows={**NIGHT, "last_start": "30m"}, limits={"concurrency": 1})
    batch.ferry.hold()
    with batch.driving():
        batch.until(lambda: batch.ferry.running)
        batch.now = NOW + timedelta(minutes=45)
        batch.until(lambda: "WINDOW" in (batch.item("a").why, batch.item("b").why))
        assert batch.ferry.running
        batch.ferry.let_go()
        batch.until(lambda: sorted(batch.states().values()) == ["SUCCEEDED", "WAITING"])
        batch.now = NOW + timedelta(hours=23)


def test_paused_and_resumed_from_another_process(batch: Batch) -> None:
    add(batch, "a", "b")
    batch.found(limits={"concurrency": 1})
    batch.ferry.hold()
    fleets = batch.stage.store.fleets
    with batch.driving():
        batch.until(lambda: batch.ferry.running)
        fleets.want("shop", "paused", True)
        batch.until(lambda: batch.item("a").why == batch.item("b").why == "PAUSED")
        batch.until(lambda: set(batch.states().values()) == {"WAITING"})
        assert not batch.ferry.running
        fleets.want("shop", "paused", None)
        batch.until(lambda: batch.ferry.running)
    assert set(batch.states().values()) == {"SUCCEEDED"}


def test_one_budget_is_shared_live_and_changed_from_another_process(batch: Batch) -> None:
    add(batch, "a", "b", size=2 * GIB)
    add(batch, "c")
    clouds = {"west": {"bandwidth": "30MiB/s"}}
    batch.found(limits={"concurrency": 2, "bandwidth": "40MiB/s", "clouds": clouds})
    batch.ferry.hold()
    store = batch.stage.store

    def limits() -> set[int]:
        """Of what runs: asked for since, else what it began with."""
        return {
            wanted if (wanted := store.get(own).wants.limit_bytes_per_second) is not None
            else store.get(own).spec.transfer.limit_bytes_per_second
            for own in (batch.item("a").migration_id, batch.item("b").migration_id)
        }  # fmt: skip

    with batch.driving():
        batch.until(lambda: len(batch.ferry.running) == 2)
        # The smallest of all budgets, by two.
        assert limits() == {15 * MIB}
        store.fleets.want("shop", "limit", 8 * MIB)
        batch.until(lambda: limits() == {4 * MIB})
        store.fleets.want("shop", "limit", 0)
        batch.until(lambda: limits() == {15 * MIB})
    assert batch.item("c").state is ItemState.SUCCEEDED


def test_cancelled_from_another_process(batch: Batch) -> None:
    add(batch, "a", "b")
    batch.found(limits={"concurrency": 1})
    batch.ferry.hold()
    with batch.driving():
        batch.until(lambda: batch.ferry.running)
        batch.stage.store.fleets.want("shop", "cancelled", True)
        batch.until(lambda: set(batch.states().values()) == {"CANCELLED"})
    assert isinstance(batch.ended, FleetRecord)
    assert batch.ended.state == "CANCELLED"
    assert len(batch.ferry.cancelled) == 1


def test_an_interrupted_batch_goes_on_where_it_was(batch: Batch) -> None:
    add(batch, "a", "b", "c")
    batch.found(limits={"concurrency": 2})
    batch.ferry.hold()
    with batch.driving():
        batch.until(lambda: len(batch.ferry.running) == 2)
        assert batch.driver is not None
        batch.driver.interrupt()
        batch.until(lambda: batch.ended is not None)
    assert isinstance(batch.ended, CancelledError)
    assert batch.stage.store.fleets.get("shop").state == "INTERRUPTED"
    assert batch.drive().state == "SUCCEEDED"
    assert batch.stage.store.listing.count() == 3


def test_what_a_driver_that_died_left_running_goes_on_first_and_needs_no_quota(
    batch: Batch,
) -> None:
    add(batch, "a")
    add(batch, "b", size=9 * GIB)
    batch.found(limits={"concurrency": 1})
    batch.stage.west.quotas = {**batch.stage.west.quotas, "instances": 0}
    fleets, dead = batch.stage.store.fleets, Holder("elsewhere-1", 1, "1", "n")
    fleets.acquire("shop", dead)
    # Begun once, and killed before the migration was made.
    fleets.change("shop", dead, batch.item("a").position, ItemState.WAITING, begun=True,
                  migration_id="m-claimed")  # fmt: skip
    with batch.driving():
        time.sleep(0.1)
        assert not batch.ran()
        fleets.release("shop", dead)
        batch.until(lambda: batch.item("a").state is ItemState.SUCCEEDED)
        assert batch.item("a").migration_id == "m-claimed"
        batch.until(lambda: batch.item("b").why == "QUOTA")
        batch.stage.west.quotas = {**batch.stage.west.quotas, "instances": 1}
        batch.now += timedelta(minutes=1)
    assert [one.id for one in batch.stage.store.listing.migrations()].count("m-claimed") == 1


@pytest.mark.parametrize(
    "error",
    [
        BusyError("MIGRATION_BUSY", "driven by pid 7"),
        PreconditionError("CONTROLLER_PORT_TAKEN", "another process listens there"),
    ],
    ids=lambda error: error.reason,
)
def test_what_another_process_has_in_hand_is_waited_for(
    batch: Batch, error: BlockferryError
) -> None:
    add(batch, "a")
    fail(batch, "a", error)
    batch.found(attempts=1)
    with batch.driving():
        batch.until(lambda: batch.item("a").why == "RETRY")
        assert batch.item("a").attempts == 0
        batch.now += timedelta(minutes=1)
    assert batch.item("a").state is ItemState.SUCCEEDED


def test_a_cloud_that_does_not_tell_its_quota_holds_nothing_back(batch: Batch) -> None:
    add(batch, "a")
    batch.found()
    batch.stage.west.fail("quota", UnreachableError("CLOUD_FAILS", "down"), times=99)
    assert batch.drive().state == "SUCCEEDED"


@dataclass
class FerryToNowhere(FakeFerry):
    """While `away` says so, no API of the destination answers."""

    away: Callable[[], bool] = lambda: False

    def _move(self, migration_id: str, volume: str, stop: threading.Event) -> None:
        if self.away():
            gone = UnreachableError("CLOUD_FAILS", "west: cannot list volumes (HTTP 503)")
            self.script[volume] = [gone]
        super()._move(migration_id, volume, stop)


def away_for(batch: Batch, time_away: timedelta) -> None:
    """The destination is down from now on, quotas included, for so long."""
    back_at = batch.now + time_away
    batch.ferry = FerryToNowhere(
        batch.stage.store, batch.ferry.clouds, away=lambda: batch.now < back_at
    )
    batch.stage.west.fail("quota", UnreachableError("CLOUD_FAILS", "down"), times=99)


def let_time_pass(batch: Batch, step: timedelta) -> None:
    """Step by step, whenever nothing moves, until the batch has ended."""
    thread = batch.thread
    assert thread is not None
    while thread.is_alive():
        pauses = [
            item.not_before
            for item in batch.stage.store.fleets.items("shop")
            if item.state is ItemState.WAITING and item.not_before
        ]
        if not batch.ferry.running and pauses and min(pauses) > batch.now:
            batch.now += step
        time.sleep(0.01)


def test_a_destination_that_is_down_for_ten_minutes_costs_no_volume(batch: Batch) -> None:
    add(batch, "a", "b", "c")
    batch.found(limits={"concurrency": 2}, breaker={"failures": 2, "within": "1h"})
    began_at = batch.now
    away_for(batch, timedelta(minutes=10))
    with batch.driving():
        batch.until(lambda: batch.item("a").why == "RETRY" and "503" in batch.item("a").reason)
        let_time_pass(batch, timedelta(seconds=30))
    assert set(batch.states().values()) == {"SUCCEEDED"}
    assert batch.now - began_at >= timedelta(minutes=10)
    assert max(Counter(batch.ran()).values()) <= outcome.AWAY_TRIES


def test_one_that_stays_away_is_not_waited_for_without_end(batch: Batch) -> None:
    add(batch, "a")
    batch.found()
    away_for(batch, timedelta(days=1))
    with batch.driving():
        batch.until(lambda: batch.item("a").why == "RETRY")
        let_time_pass(batch, timedelta(seconds=30))
    assert (batch.item("a").state, batch.item("a").why) == (ItemState.FAILED, "CLOUD_FAILS")
    assert len(batch.ran()) == outcome.AWAY_TRIES


def test_retried_and_skipped_from_outside(batch: Batch) -> None:
    add(batch, "a", "b")
    fail(batch, "a", BROKEN)
    batch.found(waves=gated(approval=True))
    fleets = batch.stage.store.fleets
    with batch.driving():
        batch.until(lambda: batch.item("a").state is ItemState.FAILED)
        waiting = (ItemState.WAITING, ItemState.FAILED)
        assert fleets.put("shop", [batch.item("a").position], ItemState.WAITING, waiting) == 1
        fleets.put("shop", [batch.item("b").position], ItemState.SKIPPED, waiting, reason="no")
    assert batch.states() == {"a": "SUCCEEDED", "b": "SKIPPED"}
    told = [event.message for event in batch.events if isinstance(event, Noted)]
    assert any("a failed: is broken" in text for text in told)


def test_what_a_dead_worker_held_is_moved_by_another(batch: Batch) -> None:
    add(batch, "a", "b")
    batch.found()
    me, crew = Holder.of_this_process(), batch.stage.store.crew
    dead = Holder(me.host, me.pid, "1", "past")
    crew.join(dead, room=1)
    batch.stage.store.fleets.acquire("shop", me)
    position = batch.item("a").position
    batch.stage.store.fleets.change("shop", me, position, ItemState.WAITING, begun=True,
                                    state=ItemState.RUNNING, migration_id="m-a")  # fmt: skip
    batch.ferry.create(replace(SPEC, source=replace(SPEC.source, volume="v")), "m-a")
    assert crew.take("shop", position, dead)
    batch.stage.store.fleets.release("shop", me)
    assert batch.drive().state == "SUCCEEDED"
    assert batch.item("a").migration_id == "m-a"
    assert batch.item("b").migration_id not in ("", "m-a")


@pytest.mark.parametrize("call", ["take", "item"])
def test_a_database_that_goes_away_as_a_volume_is_taken_loses_none(
    batch: Batch, call: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    add(batch, "a", "b")
    batch.found()
    store = batch.stage.store
    owner: Any = store.crew if call == "take" else store.fleets
    real, left = getattr(owner, call), [1]

    def answer_is_lost(*arguments: Any) -> Any:
        found_ = real(*arguments)
        if left:
            left.pop()
            raise OperationalError(call, {}, Exception("the connection is gone"))
        return found_

    monkeypatch.setattr(owner, call, answer_is_lost)
    assert batch.drive().state == "SUCCEEDED"
    assert sorted(batch.ran()) == ["a", "b"]


def test_a_worker_works_for_all_fleets_until_it_is_interrupted(batch: Batch) -> None:
    add(batch, "a")
    batch.found()
    batch.stage.keys = {"fleet": "more"}
    found(batch.stage.store.fleets, batch.stage.plan(), Settings())
    worker = batch.worker(room=1)
    thread = threading.Thread(target=worker.serve)
    thread.start()
    listing = batch.stage.store.fleet_listing
    try:
        batch.until(lambda: {one.state for one in listing.newest()} == {"SUCCEEDED"})
    finally:
        worker.interrupt()
        thread.join(20)
    assert batch.ferry.most_at_once == 1
    assert batch.stage.store.crew.alive() == []


def test_a_fleet_that_cannot_be_worked_for_keeps_no_other_from_going_on(batch: Batch) -> None:
    add(batch, "a")
    batch.found()
    batch.stage.keys = {"fleet": "nowhere", "to": "north"}
    fleets = batch.stage.store.fleets
    plan = batch.stage.plan()
    found(fleets, plan, Settings())
    batch.ferry.refused = {"north"}
    worker = batch.worker(room=1)
    thread = threading.Thread(target=worker.serve)
    thread.start()
    try:
        batch.until(lambda: fleets.get("shop").state == "SUCCEEDED")
    finally:
        worker.interrupt()
        thread.join(20)
    assert fleets.get("nowhere").state == "PENDING"
    told = [event.message for event in batch.events if isinstance(event, Noted)]
    assert sum("cannot be worked for now: no north" in text for text in told) == 1


@pytest.mark.timeout(300)
def test_five_hundred_go_through_once_each_on_postgresql(
    stage: Stage, postgres_server: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What deciding costs alone; with SQLite and real migrations it is `test_scale.py`."""
    monkeypatch.setenv("XDG_STATE_HOME", str(stage.directory))
    with closing(StateStore.open(postgres_server.new_database())) as store:
        many = Stage(stage.directory, store)
        batch = Batch(many, FakeFerry(store, {"east": many.east, "west": many.west}))
        for at in range(500):
            add(batch, f"v{at}")
        batch.found(limits={"concurrency": 16})
        assert batch.drive().state == "SUCCEEDED"
        assert len(batch.ran()) == len(set(batch.ran())) == 500
