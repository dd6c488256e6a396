"""Cleanup asks the agents first; each row of what cannot be asked."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from blockferry.errors import AuthenticationError, ForbiddenError, UnreachableError
from blockferry.identity import Identity, Role
from blockferry.v1 import agent_pb2
from blockferry_controller.engine.lease import Holder
from blockferry_controller.engine.records import State
from blockferry_controller.engine.state import StateStore
from blockferry_controller.migration.authority import Authority
from blockferry_controller.migration.ending import keys_path
from blockferry_controller.migration.silence import Silence, agent_fact
from blockferry_controller.spec import Endpoint, Kind, Spec

OWN = "m-1"


@pytest.fixture
def store(tmp_path: Path) -> Iterator[StateStore]:
    """A migration whose controller has died while its pair was at work."""
    store = StateStore.open(f"sqlite:///{tmp_path}/state.db")
    store.create(OWN, Spec(Kind.MIGRATE, Endpoint("a", "x"), Endpoint("b")), "a/x", "b/x")
    me = Holder.of_this_process()
    store.acquire(OWN, me)
    store.release(OWN, me)
    store.set_state(OWN, State.INTERRUPTED)
    store.set_facts(OWN, **{agent_fact(Role.SOURCE): "one:1", agent_fact(Role.SINK): "two:1"})
    path = keys_path(store, OWN)
    path.parent.mkdir()
    path.write_bytes(Authority.create(OWN).to_pem())
    yield store
    store.close()


class Line:
    """An agent that answers `describe` as a test wants."""

    def __init__(self, answer: Callable[[], agent_pb2.DescribeResponse]) -> None:
        self.describe = answer

    def close(self) -> None:
        """See Agent."""


def told(*, busy: bool = False, controller_seconds: int = 60) -> agent_pb2.DescribeResponse:
    response = agent_pb2.DescribeResponse(busy=busy)
    response.controller_silence.FromSeconds(controller_seconds)
    return response


def why_not(store: StateStore, **answers: Any) -> str:
    """What Silence says when the agents answer so, by role."""

    def dial(address: str, identity: Identity, *_: object, **__: object) -> Any:
        assert address

        answer = answers.get(identity.role.value, told())

        def describe() -> agent_pb2.DescribeResponse:
            if isinstance(answer, Exception):
                raise answer
            assert isinstance(answer, agent_pb2.DescribeResponse)
            return answer

        return Line(describe)

    dialled: Any = dial
    return Silence(store, dialled).why_not(store.get(OWN))


@pytest.mark.parametrize("role", ["source", "sink"])
@pytest.mark.parametrize(
    ("answer", "says"),
    [
        pytest.param(told(), "", id="silent"),
        pytest.param(told(busy=True), "still at work", id="at work"),
        pytest.param(told(controller_seconds=0), "still spoken to", id="another controller"),
        pytest.param(ForbiddenError("STALE_EPOCH", "x"), "still at work", id="a later controller"),
        pytest.param(UnreachableError("AGENT_UNREACHABLE", "x"), "", id="nobody answers"),
        pytest.param(AuthenticationError("TLS_REFUSED", "x"), "", id="not adopted"),
    ],
)
def test_what_an_agent_answers(store: StateStore, role: str, answer: Any, says: str) -> None:
    why = why_not(store, **{role: answer})
    assert says in why
    assert bool(why) == bool(says)


def test_without_keys_nobody_can_ask(store: StateStore) -> None:
    keys_path(store, OWN).unlink()
    assert "cannot be asked from here" in why_not(store, source=told(busy=True))


@pytest.mark.parametrize("state", [State.SUCCEEDED, State.CANCELLED])
def test_what_has_ended_is_silent(store: StateStore, state: State) -> None:
    keys_path(store, OWN).unlink()
    store.set_state(OWN, state)
    assert not why_not(store, source=told(busy=True))


def test_agents_that_were_never_reached_have_no_job(store: StateStore) -> None:
    store.set_facts(OWN, **{agent_fact(Role.SOURCE): "", agent_fact(Role.SINK): ""})
    keys_path(store, OWN).unlink()
    assert not why_not(store, source=told(busy=True))
