"""DBOS for real: what the engine promises of it."""

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from blockferry.errors import BusyError, PreconditionError
from blockferry_controller.engine.attempt import Attempt, StepRunner
from blockferry_controller.engine.durable import DurableEngine
from blockferry_controller.engine.state import StateStore


@pytest.fixture
def launch(store: StateStore) -> Iterator[Callable[[str], DurableEngine]]:
    engines: list[DurableEngine] = []

    def _launch(executor_id: str) -> DurableEngine:
        engines.append(DurableEngine(store.database, executor_id))
        return engines[-1]

    yield _launch
    for engine in engines:
        engine.close()


Launch = Callable[[str], DurableEngine]


def test_steps_run_in_order_with_the_attempts_names(launch: Launch) -> None:
    seen: list[object] = []

    def attempt(migration_id: str, epoch: int, run_step: StepRunner) -> None:
        seen.append((migration_id, epoch))
        seen.append(run_step("one", lambda: "first"))
        seen.append(run_step("two", lambda: "second"))

    launch("me").run("m-1", 3, attempt)
    assert seen == [("m-1", 3), "first", "second"]


def test_an_error_comes_back_whole(launch: Launch) -> None:
    def refuse() -> str:
        raise PreconditionError("VOLUME_ATTACHED", "it is attached", volume="v")

    def attempt(migration_id: str, epoch: int, run_step: StepRunner) -> None:
        run_step("preflight", refuse)

    with pytest.raises(PreconditionError) as raised:
        launch("me").run("m-1", 1, attempt)
    assert (raised.value.reason, raised.value.metadata) == ("VOLUME_ATTACHED", {"volume": "v"})


def test_a_failure_comes_out_while_the_database_is_locked(
    launch: Launch, store: StateStore
) -> None:
    """The lock may be what failed: whoever waits for it first never says so."""
    held = store.database.connect()

    def lock() -> str:
        if store.database.dialect.name == "sqlite":
            held.exec_driver_sql("BEGIN IMMEDIATE")
        else:
            held.exec_driver_sql("LOCK TABLE dbos.operation_outputs, dbos.workflow_status")
        raise BusyError("STATE_LOCKED", "somebody has it")

    def attempt(migration_id: str, epoch: int, run_step: StepRunner) -> None:
        run_step("copy", lock)

    engine = launch("me")
    begun_at = time.monotonic()
    with held, pytest.raises(BusyError):
        engine.run("m-1", 1, attempt)
    assert time.monotonic() - begun_at < 5


def test_an_ended_attempt_is_not_run_again(launch: Launch) -> None:
    runs: list[int] = []

    def attempt(migration_id: str, epoch: int, run_step: StepRunner) -> None:
        runs.append(epoch)

    engine = launch("me")
    engine.run("m-1", 1, attempt)
    engine.run("m-1", 1, attempt)
    engine.run("m-1", 2, attempt)
    assert runs == [1, 2]


def test_another_executor_recovers_nothing_on_its_own(launch: Launch) -> None:
    started: list[str] = []

    def dies(migration_id: str, epoch: int, run_step: StepRunner) -> None:
        started.append("first")
        raise SystemExit

    engine = launch("first")
    with pytest.raises(BaseException):  # noqa: B017, PT011 - however DBOS words it
        engine.run("m-1", 1, dies)
    engine.close()

    def other(migration_id: str, epoch: int, run_step: StepRunner) -> None:
        started.append("second")

    second = launch("second")
    second.run("m-2", 1, other)
    assert started == ["first", "second"]


def test_one_engine_a_process(launch: Launch) -> None:
    launch("me")
    with pytest.raises(RuntimeError):
        launch("me too")


def test_attempts_side_by_side_are_each_their_own(launch: Launch) -> None:
    all_here = threading.Barrier(8, timeout=20)
    told: dict[str, str] = {}

    def of(name: str) -> Attempt:
        def attempt(migration_id: str, epoch: int, run_step: StepRunner) -> None:
            assert migration_id == name
            # None gets on before all have begun.
            told[name] = run_step("meet", lambda: f"{name} {all_here.wait() >= 0}")
            if name == "m-3":
                raise PreconditionError("REFUSED", name)

        return attempt

    engine = launch("me")
    with ThreadPoolExecutor(8) as pool:
        runs = {n: pool.submit(engine.run, n, 1, of(n)) for n in (f"m-{at}" for at in range(8))}
        errors = {name: run.exception() for name, run in runs.items()}
    assert told == {name: f"{name} True" for name in runs}
    assert [name for name, error in errors.items() if error] == ["m-3"]
