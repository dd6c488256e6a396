"""DBOS for real, on SQLite: what the engine promises of it."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from blockferry.errors import PreconditionError
from blockferry_controller.engine.durable import Attempt, DurableEngine, StepRunner
from blockferry_controller.engine.state import StateStore


@pytest.fixture
def launch(tmp_path: Path) -> Iterator[Callable[[Attempt, str], DurableEngine]]:
    engines: list[DurableEngine] = []
    store = StateStore.open(f"sqlite:///{tmp_path}/state.db")

    def _launch(attempt: Attempt, executor_id: str) -> DurableEngine:
        engines.append(DurableEngine(store.database, executor_id, attempt))
        return engines[-1]

    yield _launch
    for engine in engines:
        engine.close()
    store.close()


Launch = Callable[[Attempt, str], DurableEngine]


def test_steps_run_in_order_with_the_attempts_names(launch: Launch) -> None:
    seen: list[object] = []

    def attempt(migration_id: str, epoch: int, run_step: StepRunner) -> None:
        seen.append((migration_id, epoch))
        seen.append(run_step("one", lambda: "first"))
        seen.append(run_step("two", lambda: "second"))

    launch(attempt, "me").run("m-1", 3)
    assert seen == [("m-1", 3), "first", "second"]


def test_an_error_comes_back_whole(launch: Launch) -> None:
    def refuse() -> str:
        raise PreconditionError("VOLUME_ATTACHED", "it is attached", volume="v")

    def attempt(migration_id: str, epoch: int, run_step: StepRunner) -> None:
        run_step("preflight", refuse)

    with pytest.raises(PreconditionError) as raised:
        launch(attempt, "me").run("m-1", 1)
    assert (raised.value.reason, raised.value.metadata) == ("VOLUME_ATTACHED", {"volume": "v"})


def test_an_ended_attempt_is_not_run_again(launch: Launch) -> None:
    runs: list[int] = []

    def attempt(migration_id: str, epoch: int, run_step: StepRunner) -> None:
        runs.append(epoch)

    engine = launch(attempt, "me")
    engine.run("m-1", 1)
    engine.run("m-1", 1)
    engine.run("m-1", 2)
    assert runs == [1, 2]


def test_another_executor_recovers_nothing_on_its_own(launch: Launch) -> None:
    started: list[str] = []

    def dies(migration_id: str, epoch: int, run_step: StepRunner) -> None:
        started.append("first")
        raise SystemExit

    engine = launch(dies, "first")
    with pytest.raises(BaseException):  # noqa: B017, PT011 - however DBOS words it
        engine.run("m-1", 1)
    engine.close()

    def other(migration_id: str, epoch: int, run_step: StepRunner) -> None:
        started.append("second")

    second = launch(other, "second")
    second.run("m-2", 1)
    assert started == ["first", "second"]


def test_one_engine_a_process(launch: Launch) -> None:
    def attempt(migration_id: str, epoch: int, run_step: StepRunner) -> None: ...

    launch(attempt, "me")
    with pytest.raises(RuntimeError):
        launch(attempt, "me too")
