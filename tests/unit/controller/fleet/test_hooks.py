"""What the hooks of a fleet are told, and that they are never in its way."""

import json
import logging
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from blockferry.errors import PreconditionError, UsageError
from blockferry_controller.engine import history
from blockferry_controller.engine.deliveries import MOST_LOST
from blockferry_controller.engine.fleet_records import ItemState
from blockferry_controller.engine.history import Entry
from blockferry_controller.engine.lease import Holder
from blockferry_controller.fleet.founding import found
from blockferry_controller.fleet.grammar import read_fleet
from blockferry_controller.fleet.hooks.courier import delivering
from blockferry_controller.fleet.hooks.sending import UndeliveredError
from blockferry_controller.fleet.planning import Settings
from blockferry_controller.fleet.spec import Hook
from blockferry_controller.report.fleet_hooks import hooks_of
from tests.fakes.ferry import FakeFerry
from tests.fakes.receiver import HANGUP, SLOW, receiver
from tests.unit.controller.fleet.stage import Stage

pytestmark = pytest.mark.timeout(120)
NOBODY: dict[str, Any] = {"name": "n", "command": "true", "timeout": "2s"}


@dataclass
class Told:
    """A hook in memory; `errors` is what comes of each try, in order, None for well."""

    errors: list[str | None] = field(default_factory=list)
    tries: list[str] = field(default_factory=list)
    ids: list[str] = field(default_factory=list)

    def __call__(self, hook: Hook, entry: Entry, seconds: float) -> None:
        assert 0 < seconds <= hook.timeout_seconds
        self.tries.append(entry.event)
        error = self.errors.pop(0) if self.errors else None
        if error is not None:
            raise UndeliveredError(error)
        self.ids.append(entry.id)


def founded(stage: Stage, *hooks: dict[str, Any]) -> None:
    stage.east.add_volume("a")
    stage.keys = {"hooks": list(hooks)}
    found(stage.store.fleets, stage.plan(), Settings())


def deliver(stage: Stage, told: Told, until: Callable[[], object] = lambda: True) -> None:
    """Until that holds, and then to the end."""
    with delivering(stage.store, stage.store.fleets.get("shop"), told, pause=0.001):
        deadline = time.monotonic() + 20
        while not until():
            assert time.monotonic() < deadline, told
            time.sleep(0.002)


def standing(stage: Stage) -> dict[str, Any]:
    (row,) = hooks_of(stage.store.deliveries, stage.store.fleets.get("shop"))
    return row


def ask(stage: Stage, *values: int) -> None:
    for value in values:
        stage.store.fleets.want("shop", "limit", value)


def asked_and_kept(stage: Stage) -> list[int]:
    """Values of the events `asked` that the history has, oldest first."""
    kept = stage.store.history.of_fleet("shop", 0, 10_000, ["asked"])
    return [entry.data["value"] for entry in kept]


def test_nothing_is_forgotten_before_every_hook_was_told(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(history, "MOST_OF_ONE", 5)
    founded(stage, NOBODY, {**NOBODY, "name": "slow"})
    ask(stage, *range(40))
    assert asked_and_kept(stage) == list(range(40))
    told = Told()
    # The end waits for what is on its way, but not for ever.
    deliver(stage, told, lambda: told.tries.count("asked") >= 2 * 40)
    assert told.tries.count("asked") == 2 * 40
    ask(stage, 40)
    assert asked_and_kept(stage) == [36, 37, 38, 39, 40]


def test_what_a_hook_is_not_to_be_told_is_not_kept_for_it(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(history, "MOST_OF_ONE", 5)
    founded(stage, {**NOBODY, "on": ["fleet_done"]})
    ask(stage, *range(20))
    told = Told()
    deliver(stage, told)
    ask(stage, 20)
    assert told.tries == []
    assert asked_and_kept(stage) == [16, 17, 18, 19, 20]


def test_a_hook_that_was_taken_out_of_the_file_holds_nothing_back(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(history, "MOST_OF_ONE", 5)
    founded(stage, NOBODY)
    ask(stage, *range(20))
    fleets = stage.store.fleets
    fleets.describe("shop", fleets.get("shop").document, [])
    ask(stage, 20)
    assert asked_and_kept(stage) == [16, 17, 18, 19, 20]


def test_each_event_is_told_once_in_order_and_not_again(stage: Stage) -> None:
    founded(stage, NOBODY)
    ask(stage, 1, 2)
    told = Told()
    deliver(stage, told)
    assert told.tries == ["planned", "asked", "asked"]
    assert len(set(told.ids)) == 3
    ask(stage, 3)
    deliver(stage, told)
    assert told.tries == ["planned", "asked", "asked", "asked"]
    assert standing(stage) == {
        "hook": "n", "delivered": 4, "given_up": 0, "waiting": 0, "error": "", "lost": [],
    }  # fmt: skip


def test_only_what_it_asked_for(stage: Stage) -> None:
    founded(stage, {**NOBODY, "on": ["wave_done", "succeeded"]})
    me = Holder.of_this_process()
    stage.store.fleets.acquire("shop", me)
    stage.store.fleets.change("shop", me, 0, ItemState.WAITING, state=ItemState.SUCCEEDED)
    told = Told()
    deliver(stage, told)
    assert told.tries == ["succeeded", "wave_done"]
    assert standing(stage)["waiting"] == 0


def test_what_fails_is_tried_again_with_the_same_id(stage: Stage) -> None:
    founded(stage, {**NOBODY, "attempts": 3})
    told = Told(["no", "no", None])
    deliver(stage, told, lambda: told.ids)
    assert told.tries == ["planned"] * 3
    assert standing(stage)["delivered"] == 1


def test_what_is_never_taken_is_given_up_and_told(stage: Stage) -> None:
    founded(stage, {**NOBODY, "attempts": 3})
    ask(stage, 1, 2)
    told = Told(["no"] * 4)
    deliver(stage, told, lambda: told.ids)
    # Down after three tries: the next has one, and once it is well again all are as before.
    assert told.tries == ["planned"] * 3 + ["asked"] * 2
    row = standing(stage)
    assert (row["delivered"], row["given_up"], row["error"]) == (1, 2, "")
    assert [(one["event"], one["error"]) for one in row["lost"]] == [
        ("planned", "no"), ("asked", "no"),
    ]  # fmt: skip


def test_so_many_are_named(stage: Stage) -> None:
    founded(stage, NOBODY)
    ask(stage, *range(MOST_LOST + 5))
    told = Told(["no"] * 1000)
    deliver(stage, told, lambda: standing(stage)["waiting"] == 0)
    row = standing(stage)
    assert (row["given_up"], len(row["lost"])) == (MOST_LOST + 6, MOST_LOST)
    assert row["error"] == "no"


def test_what_is_left_at_the_end_is_brought_the_next_time(stage: Stage) -> None:
    founded(stage, NOBODY)
    told = Told(["no"] * 5)
    # The block ends at once: each event has a last chance, and is not given up.
    begun = threading.Event()

    def late(hook: Hook, entry: Entry, seconds: float) -> None:
        begun.wait(10)
        told(hook, entry, seconds)

    with delivering(stage.store, stage.store.fleets.get("shop"), late, pause=0.001):
        threading.Timer(0.2, begun.set).start()
    assert standing(stage) == {
        "hook": "n", "delivered": 0, "given_up": 0, "waiting": 1, "error": "no", "lost": [],
    }  # fmt: skip
    deliver(stage, told)
    assert standing(stage)["delivered"] == 1


def test_a_controller_that_died_between_telling_and_noting_it_tells_it_again(
    stage: Stage,
) -> None:
    founded(stage, NOBODY)
    dead = Holder(Holder.of_this_process().host, 2**22 + 1, "1", "dead")
    assert stage.store.deliveries.claim("shop", "n", str(dead), 1000)
    told = Told()
    deliver(stage, told, lambda: told.ids)
    assert told.tries == ["planned"]


def test_one_process_at_a_time_delivers(stage: Stage) -> None:
    founded(stage, NOBODY)
    deliveries = stage.store.deliveries
    alive = str(Holder("elsewhere-1", 1, "1", "x"))
    assert deliveries.claim("shop", "n", alive, 1000)
    assert deliveries.claim("shop", "n", alive, 1000)
    told = Told()
    deliver(stage, told)
    assert not told.tries
    deliveries.release("shop", "n", alive)
    deliver(stage, told, lambda: told.ids)


def test_a_defect_of_a_hook_does_not_reach_the_fleet(
    stage: Stage, caplog: pytest.LogCaptureFixture
) -> None:
    founded(stage, NOBODY)

    def broken(hook: Hook, entry: Entry, seconds: float) -> None:
        raise ZeroDivisionError

    with (
        caplog.at_level(logging.ERROR),
        delivering(stage.store, stage.store.fleets.get("shop"), broken),
    ):
        pass
    assert "hook n is not served any more" in caplog.text


# --- with the command that a person gives ---------------------------------------------


@pytest.fixture
def ferry(stage: Stage) -> FakeFerry:
    return FakeFerry(stage.store, {"east": stage.east, "west": stage.west})


def batch(stage: Stage, ferry: FakeFerry, *hooks: dict[str, Any]) -> float:
    """Seconds that a batch of three volumes takes, one of them broken."""
    for name in ("a", "b", "bad"):
        if not any(one.name == name for one in stage.east.volumes.values()):
            stage.east.add_volume(name)
    bad = stage.east.find_volume("bad")
    ferry.script = {bad.id: [PreconditionError("VOLUME_STATE", "is broken")]}
    stage.keys = {"hooks": list(hooks)} if hooks else {}
    begun = time.monotonic()
    code = stage.run("batch", stage.write(), "-o", "json", service=lambda store, listener: ferry)
    assert code == 3
    return time.monotonic() - begun


def test_a_server_that_is_down_for_a_while_misses_nothing(
    stage: Stage, ferry: FakeFerry, capsys: pytest.CaptureFixture[str]
) -> None:
    with receiver(500, HANGUP, SLOW, 503) as heard:
        batch(stage, ferry, {"name": "web", "url": heard.url, "timeout": "2s"})
        again = stage.run(
            "batch", stage.write(), "-o", "json", service=lambda store, listener: ferry
        )
        assert again == 3
        ids = [event["id"] for event in heard.events]
        first = ids[0]
        assert ids[:2] == [first] * 2
        last: dict[str, dict[str, Any]] = {event["id"]: event for event in heard.events}
    words = [event["event"] for event in last.values()]
    assert words[0] == "planned"
    assert {"driven", "created", "ended", "failed", "succeeded", "wave_done"} < set(words)
    failed = next(event for event in last.values() if event["event"] == "failed")
    assert (failed["volume"]["name"], failed["data"]["why"]) == ("bad", "VOLUME_STATE")
    done = next(event for event in last.values() if event["event"] == "fleet_done")
    assert done["data"]["counts"] == {"FAILED": 1, "SUCCEEDED": 2}
    capsys.readouterr()
    assert stage.run("report", "shop", "-o", "json") == 0
    (row,) = json.loads(capsys.readouterr().out)["hooks"]
    assert (row["given_up"], row["waiting"]) == (0, 0)
    assert row["delivered"] == len(last)


def test_a_fleet_whose_every_hook_hangs_ends_in_the_same_time(
    stage: Stage, ferry: FakeFerry, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    hangs = [sys.executable, "-c", "import time; time.sleep(300)"]
    with receiver(*[SLOW] * 50) as heard:
        seconds = batch(
            stage, ferry,
            *[{"name": f"c{at}", "command": hangs, "timeout": "2s"} for at in range(3)],
            *[{"name": f"w{at}", "url": heard.url, "timeout": "2s"} for at in range(3)],
        )  # fmt: skip
        record = stage.store.fleets.get("shop")
    assert record.ended_at is not None
    # The fleet itself does not know of its hooks; the process waits one time-out at its end.
    fleet_took = (record.ended_at - record.created_at).total_seconds()
    assert seconds < fleet_took + 2 + 5
    assert fleet_took < 10
    assert not [one for one in threading.enumerate() if one.name.startswith("hook ")]
    capsys.readouterr()
    assert stage.run("report", "shop") == 0
    assert "## Hooks" in capsys.readouterr().out
    assert all(row["delivered"] == 0 for row in hooks_of(stage.store.deliveries, record))
    assert all(row["waiting"] > 3 for row in hooks_of(stage.store.deliveries, record))


def test_a_hook_that_cannot_work_is_refused_before_the_fleet_is_begun(
    stage: Stage, ferry: FakeFerry, capsys: pytest.CaptureFixture[str]
) -> None:
    stage.east.add_volume("a")
    stage.keys = {"hooks": [{"name": "x", "command": "/no/such/command"}]}
    code = stage.run("batch", stage.write(), "-o", "json", service=lambda store, listener: ferry)
    assert code == 12
    assert json.loads(capsys.readouterr().out)["error"]["reason"] == "HOOK_UNUSABLE"
    assert stage.store.fleets.find("shop") is None


def test_hooks_may_be_mended_while_the_fleet_is_on_its_way(
    stage: Stage, ferry: FakeFerry, capsys: pytest.CaptureFixture[str]
) -> None:
    with receiver() as heard:
        batch(stage, ferry, {"name": "web", "url": "http://127.0.0.1:9/", "timeout": "1s"})
        assert not heard.bodies
        batch(stage, ferry, {"name": "web", "url": heard.url, "timeout": "5s"})
    # What the first had given up is lost, and told; what was waiting has come.
    assert "fleet_done" in heard.words()
    row = hooks_of(stage.store.deliveries, stage.store.fleets.get("shop"))[0]
    assert row["waiting"] == 0
    assert row["delivered"] == len(heard.bodies)
    capsys.readouterr()
    stage.keys = {**stage.keys, "attempts": 7}
    code = stage.run("batch", stage.write(), "-o", "json", service=lambda store, listener: ferry)
    assert code == 12
    assert json.loads(capsys.readouterr().out)["error"]["reason"] == "FLEET_CHANGED"


@pytest.mark.parametrize(
    ("hook", "said"),
    [
        ({"name": "x"}, "must have either command or url"),
        ({"name": "x", "url": "http://h/", "command": "true"}, "must have either"),
        ({"name": "x", "url": "ftp://h/"}, "is not an http or https URL"),
        ({"name": "x", "url": "https://u:p@h/"}, "without user and password"),
        ({"name": "x", "url": "http://h:99999/"}, "is not an http"),
        ({"name": "x", "command": "true", "secret_file": "/s"}, "secret_file is for a url"),
        ({"name": "x", "command": "true", "on": ["fleet_dome"]}, "did you mean fleet_done"),
        ({"command": "true"}, "name"),
    ],
)
def test_what_no_hook_can_mean_is_refused(hook: dict[str, Any], said: str) -> None:
    file = {"fleet": "s", "from": "a", "to": "b", "select": {"names": "*"}, "hooks": [hook]}
    with pytest.raises(UsageError, match=said):
        read_fleet(json.dumps(file), "f")


def test_two_hooks_of_one_name_are_refused() -> None:
    hooks = [{"name": "x", "command": "true"}] * 2
    file = {"fleet": "s", "from": "a", "to": "b", "select": {"names": "*"}, "hooks": hooks}
    with pytest.raises(UsageError, match="several hooks named x"):
        read_fleet(json.dumps(file), "f")
