"""What people want of a copy reaches its agent, whatever is away at that moment."""

from datetime import datetime, timezone
from types import SimpleNamespace
from typing import Any

import pytest
from sqlalchemy.exc import OperationalError

from blockferry.errors import UnreachableError
from blockferry.v1 import agent_pb2
from blockferry_controller.engine.requests import Request, Want, Wants
from blockferry_controller.migration.steps.steer import AGAIN_SECONDS, ALL_SENT, Steering

COPYING = agent_pb2.Job(id="j", state=agent_pb2.JOB_STATE_RUNNING)
DONE = agent_pb2.Job(id="j", state=agent_pb2.JOB_STATE_SUCCEEDED)


class World:
    """One migration: its database, which may be away, and its source, which may be lost."""

    migration_id, epoch, paused = "m", 1, False

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 100.0
        self.asked = Wants()
        self.away = self.lost = False
        self.told: list[tuple[bool, int | None]] = []
        self.shown: list[str] = []
        self.answers: list[tuple[Want, str]] = []
        self.store = SimpleNamespace(
            set_state=self._set_state, requests=SimpleNamespace(answer=self._answer)
        )
        monkeypatch.setattr("time.monotonic", lambda: self.now)

    def ask(self, **wants: bool | int) -> None:
        now = datetime.now(timezone.utc)
        self.asked = Wants({Want(name): Request(Want(name), wants[name], now) for name in wants})

    def wants(self) -> Wants:
        return self.asked

    def note(self, message: str) -> None:
        del message

    def update_job(self, _: str, *, paused: bool, limit_bytes_per_second: int | None) -> None:
        if self.lost:
            raise UnreachableError("AGENT_SILENT", "nobody answers")
        self.told.append((paused, limit_bytes_per_second))

    def _set_state(self, _: str, state: Any, *, epoch: int) -> None:
        del epoch
        self._must_be_there()
        self.shown.append(state.value)

    def _answer(self, _: str, request: Request, answer: str) -> None:
        self._must_be_there()
        self.answers.append((request.want, answer))

    def _must_be_there(self) -> None:
        if self.away:
            raise OperationalError("UPDATE", {}, Exception("the server is gone"))


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    return World(monkeypatch)


def steering(world: Any, job: agent_pb2.Job = COPYING) -> Steering:
    return Steering(world, world, job)


def test_nothing_wanted_is_nothing_told(world: World) -> None:
    steering(world).follow(COPYING)
    assert (world.told, world.shown, world.answers) == ([], [], [])


def test_what_is_wanted_is_told_once_then_shown_and_answered(world: World) -> None:
    follower = steering(world)
    world.ask(paused=True, limit=5)
    for _ in range(3):
        follower.follow(COPYING)
    assert world.told == [(True, 5)]
    assert world.shown == ["PAUSED"]
    assert world.answers == [(Want.PAUSED, ""), (Want.LIMIT, "")]


def test_nothing_is_shown_or_answered_before_the_agent_knows(world: World) -> None:
    follower = steering(world)
    world.lost = True
    world.ask(paused=True)
    follower.follow(COPYING)
    assert (world.shown, world.answers) == ([], [])

    world.lost = False
    follower.follow(COPYING)
    assert world.told == []
    world.now += AGAIN_SECONDS
    follower.follow(COPYING)
    assert (world.told, world.shown) == ([(True, None)], ["PAUSED"])


def test_a_database_that_is_away_hears_of_it_later(world: World) -> None:
    follower = steering(world)
    world.away = True
    world.ask(paused=True)
    follower.follow(COPYING)
    assert (world.told, world.shown) == ([(True, None)], [])

    world.away = False
    follower.follow(COPYING)
    assert world.shown == []
    world.now += AGAIN_SECONDS
    follower.follow(COPYING)
    assert world.told == [(True, None)]
    assert (world.shown, world.answers) == (["PAUSED"], [(Want.PAUSED, "")])


def test_a_job_found_paused_goes_on_when_nobody_wants_it_paused(world: World) -> None:
    paused = agent_pb2.Job(id="j", state=agent_pb2.JOB_STATE_PAUSED)
    steering(world, paused).follow(paused)
    assert world.told == [(False, None)]


def test_what_comes_too_late_is_answered_so(world: World) -> None:
    follower = steering(world)
    world.lost = True
    world.ask(cancelled=False, limit=5)
    follower.follow(COPYING)
    # The end of the job is not put off until the agent would be asked again.
    follower.follow(DONE)
    assert world.told == []
    assert world.answers == [(Want.LIMIT, ALL_SENT)]
