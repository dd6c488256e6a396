import os
import sqlite3
import stat
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest

from blockferry.errors import (
    BusyError,
    NotFoundError,
    PreconditionError,
    UnreachableError,
    UsageError,
)
from blockferry_controller.engine import lease, tables
from blockferry_controller.engine.database import _write_ahead
from blockferry_controller.engine.lease import Holder
from blockferry_controller.engine.records import State
from blockferry_controller.engine.state import StateStore
from blockferry_controller.events import Progress
from blockferry_controller.spec import Endpoint, Kind, Placement, Spec, Transfer, Verify
from tests.unit.controller.engine.aging import age
from tests.unit.controller.engine.conftest import NewUrl

SPEC = Spec(
    Kind.MIGRATE,
    Endpoint("east", "data", Placement(image="debian-12", wheels="http://127.0.0.1/")),
    Endpoint("west"),
    Transfer(compression="zstd:3", channels=2, verify=Verify.WIRE),
    to_type="fast",
)
ME = Holder.of_this_process()


@pytest.fixture
def mine(store: StateStore) -> str:
    store.create("m-1", SPEC, "east/data", "west/")
    return "m-1"


def holder(name: str) -> Holder:
    """A process of another host, of which nobody here can say that it is dead."""
    return Holder("elsewhere-00000000", 1, "1", name)


def test_a_new_migration_is_remembered_whole(store: StateStore, mine: str) -> None:
    record = store.get(mine)
    assert record.spec == SPEC
    assert (record.state, record.epoch, record.size_bytes) == ("PENDING", 0, 0)
    assert record.created_at.tzinfo is not None
    assert record.ended_at is None


def test_files_are_private(store: StateStore) -> None:
    assert stat.S_IMODE(store.directory.stat().st_mode) == 0o700
    for file in store.directory.iterdir():
        assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_it_is_there_after_a_restart(store: StateStore, mine: str) -> None:
    store.set_facts(mine, digest="blake3:00")
    again = StateStore.open(store.url)
    assert again.get(mine).facts == {"digest": "blake3:00"}
    again.close()


def test_two_sides_remember_at_once(store: StateStore, mine: str) -> None:
    def remember(side: str) -> None:
        for number in range(20):
            store.set_facts(mine, **{f"{side}_{number}": number})

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(remember, ("source", "destination")))
    assert len(store.get(mine).facts) == 40


def test_the_beginning_of_an_id_is_enough(store: StateStore, mine: str) -> None:
    assert store.get("m-").id == mine


@pytest.mark.parametrize("reference", ["m-2", "", "%", "_-1"])
def test_no_such_migration(store: StateStore, reference: str) -> None:
    store.create("x-1", SPEC, "a", "b")
    store.create("y-1", SPEC, "a", "b")
    with pytest.raises((NotFoundError, PreconditionError)) as raised:
        store.get(reference)
    expected = "MIGRATION_NOT_FOUND" if reference else "MIGRATION_AMBIGUOUS"
    assert raised.value.reason == expected


def test_the_exact_id_wins_over_longer_ones(store: StateStore, mine: str) -> None:
    store.create("m-10", SPEC, "a", "b")
    assert store.get("m-1").id == mine


def test_newest_last(store: StateStore, mine: str) -> None:
    store.create("a-0", SPEC, "a", "b")
    assert [record.id for record in store.listing.migrations()] == [mine, "a-0"]


def test_epoch_grows_with_each_attempt(store: StateStore, mine: str) -> None:
    first = holder("first")
    assert store.acquire(mine, first) == 1
    store.release(mine, first)
    assert store.acquire(mine, holder("second")) == 2


def test_a_live_lease_is_respected_and_the_epoch_stays(store: StateStore, mine: str) -> None:
    store.acquire(mine, holder("first"))
    with pytest.raises(BusyError, match="driven by another process"):
        store.acquire(mine, holder("second"))
    assert store.get(mine).epoch == 1
    assert store.driven(mine)


def test_an_expired_lease_is_taken_over(store: StateStore, mine: str) -> None:
    first = holder("first")
    store.acquire(mine, first)
    age(store, lease.LEASE_SECONDS + 1)
    assert not store.driven(mine)
    assert store.acquire(mine, holder("second")) == 2
    assert not store.renew(mine, first)


def test_a_lease_is_held_by_its_holder_while_half_of_it_is_left(
    store: StateStore, mine: str
) -> None:
    first = holder("first")
    assert not store.holds(mine, first)
    store.acquire(mine, first)
    assert store.holds(mine, first)
    assert not store.holds(mine, holder("second"))
    age(store, lease.LEASE_SECONDS / 2 + 1)
    # It is still there, and has to be renewed before anybody builds on it.
    assert not store.holds(mine, first)
    assert store.renew(mine, first)
    assert store.holds(mine, first)


def test_facts_alone(store: StateStore, mine: str) -> None:
    assert store.facts(mine) == {}
    store.set_facts(mine, rung="ipv6")
    assert store.facts(mine) == store.get(mine).facts == {"rung": "ipv6"}
    assert store.facts("of-nobody") == {}


def test_an_id_is_known_only_whole(store: StateStore, mine: str) -> None:
    assert store.knows(mine)
    assert not store.knows(mine[:-1])


@pytest.mark.parametrize("state", [State.SUCCEEDED, State.CANCELLED])
def test_what_has_ended_is_not_taken_over(store: StateStore, mine: str, state: State) -> None:
    store.acquire(mine, holder("first"))
    store.set_state(mine, state)
    store.release(mine, holder("first"))
    with pytest.raises(PreconditionError) as raised:
        store.acquire(mine, holder("was cut off"))
    assert raised.value.reason == "MIGRATION_ENDED"
    assert (store.get(mine).epoch, store.driven(mine)) == (1, False)


def test_a_dead_holder_of_this_host_is_taken_over_at_once(store: StateStore, mine: str) -> None:
    me = Holder.of_this_process()
    store.acquire(mine, Holder(me.host, me.pid, "1", "past"))
    assert store.acquire(mine, me) == 2


@pytest.mark.parametrize("state", [State.RUNNING, State.PAUSED])
def test_without_a_driver_it_reads_interrupted(store: StateStore, mine: str, state: State) -> None:
    me = Holder.of_this_process()
    store.acquire(mine, me)
    store.set_state(mine, state)
    assert store.get(mine).state == state.value
    store.release(mine, me)
    assert store.get(mine).state == "INTERRUPTED"
    assert store.listing.newest(1)[0].state == "INTERRUPTED"


def test_state_error_and_end(store: StateStore, mine: str) -> None:
    store.set_state(mine, State.FAILED, message="no", error={"reason": "X"}, result={"id": mine})
    failed = store.get(mine)
    assert (failed.message, failed.error, failed.result) == ("no", {"reason": "X"}, {"id": mine})
    assert failed.ended_at is not None
    store.set_state(mine, State.RUNNING)
    again = store.get(mine)
    assert (again.message, again.error, again.ended_at) == ("", None, None)


def test_progress_and_steps(store: StateStore, mine: str) -> None:
    store.save_progress(mine, Progress(committed_bytes=1))
    store.save_progress(mine, Progress(committed_bytes=2))
    store.acquire(mine, ME)
    assert store.add_step(mine, 1, "preflight", 0.5, "ok")
    assert store.add_step(mine, 1, "authority", 0.1, "made")
    store.acquire(mine, ME)
    assert store.add_step(mine, 2, "preflight", 0.2, "ok")
    assert not store.add_step(mine, 1, "volume", 9.0, "another attempt has begun")
    record = store.get(mine)
    assert record.progress.committed_bytes == 2
    assert [(step.epoch, step.name) for step in record.steps] == [
        (1, "preflight"),
        (1, "authority"),
        (2, "preflight"),
    ]


def test_a_database_of_a_newer_version_is_refused(store: StateStore) -> None:
    with store.database.begin() as connection:
        connection.execute(tables.schema.update().values(version=tables.SCHEMA_VERSION + 1))
    with pytest.raises(PreconditionError) as raised:
        StateStore.open(store.url)
    assert raised.value.reason == "STATE_TOO_NEW"


@pytest.mark.parametrize(
    ("url", "error"),
    [
        pytest.param("no url", UsageError, id="no url"),
        pytest.param("sqlite:////dev/null/state.db", UnreachableError, id="no directory"),
    ],
)
def test_unusable_url(url: str, error: type[Exception]) -> None:
    with pytest.raises(error, match="--state"):
        StateStore.open(url)


def test_a_database_that_nothing_here_speaks_to(tmp_path: Path) -> None:
    with pytest.raises(PreconditionError, match=r"pip install 'psycopg\[binary\]'") as raised:
        StateStore.open("mysql://db/state", directory=tmp_path)
    assert raised.value.reason == "STATE_DRIVER"


def test_many_processes_may_open_a_new_database_at_once(
    new_url: NewUrl, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    program = (
        "import sys; from blockferry_controller.engine.state import StateStore; "
        "print(flush=True); sys.stdin.readline(); StateStore.open(sys.argv[1]).close()"
    )
    url = new_url()
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", program, url], stdin=pipe, stdout=pipe, stderr=pipe, text=True
        )
        for pipe in [subprocess.PIPE] * 6
    ]
    for process in processes:
        assert process.stdout is not None
        process.stdout.readline()
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    said = [process.communicate(timeout=30)[1] for process in processes]
    assert said == [""] * 6


def test_of_many_that_are_first_at_a_database_none_is_refused(tmp_path: Path) -> None:
    """SQLite refuses one in ten such rounds by itself."""
    at_once, rounds = 6, 100
    together = threading.Barrier(at_once)

    def first(_: int) -> None:
        for number in range(rounds):
            with closing(sqlite3.connect(tmp_path / f"{number}.db", timeout=20)) as connection:
                together.wait(20)
                _write_ahead(connection)

    with ThreadPoolExecutor(at_once) as pool:
        list(pool.map(first, range(at_once)))


def test_two_processes_cannot_both_acquire(store: StateStore, mine: str) -> None:
    other = StateStore.open(store.url)
    assert store.acquire(mine, holder(f"{os.getpid()}-a")) == 1
    with pytest.raises(BusyError):
        other.acquire(mine, holder(f"{os.getpid()}-b"))
    other.close()
