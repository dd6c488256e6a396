"""Copies over each rung of the ladder, with real agents of this machine.

Only what an agent says that it reaches is told otherwise here; the bytes then
really take the other way.
"""

import random
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from blockferry.errors import UnreachableError
from blockferry.identity import Identity, Role
from blockferry.limits import MIB
from blockferry.v1 import agent_pb2
from blockferry.wire import to_proto
from blockferry_controller.agents.dial import dial
from blockferry_controller.agents.port import Agent
from blockferry_controller.clouds.local import LocalCloud
from blockferry_controller.engine.state import StateStore
from blockferry_controller.migration.service import Migrations
from blockferry_controller.migration.steps import connect
from blockferry_controller.spec import Endpoint, Kind, Spec

SIZE = 24 * MIB


class Walled:
    """An agent behind a firewall that lets nothing out to its peer."""

    def __init__(self, agent: Agent) -> None:
        self._agent = agent

    def __getattr__(self, name: str) -> Any:
        return getattr(self._agent, name)

    def probe_peer(
        self, addresses: Sequence[str], timeout_seconds: float
    ) -> list[agent_pb2.PeerReach]:
        del timeout_seconds
        error = to_proto(UnreachableError("PEER_SILENT", "nothing came back"))
        return [agent_pb2.PeerReach(address=address, error=error) for address in addresses]


@pytest.fixture
def store(tmp_path: Path) -> Iterator[StateStore]:
    store = StateStore.open(f"sqlite:///{tmp_path}/state/state.db")
    yield store
    store.close()


@pytest.fixture
def spec(tmp_path: Path) -> Spec:
    source = tmp_path / "source"
    source.write_bytes(random.Random(7).randbytes(SIZE))
    sink = tmp_path / "sink"
    return Spec(Kind.COPY, Endpoint("local", str(source)), Endpoint("local", str(sink)))


def migrations(store: StateStore, tmp_path: Path, *walled: Role) -> Migrations:
    def connect_cloud(_: str) -> LocalCloud:
        return LocalCloud(tmp_path / "agents")

    def walled_dial(address: str, identity: Identity, *rest: Any, **options: Any) -> Any:
        agent = dial(address, identity, *rest, **options)
        return Walled(agent) if identity.role in walled else agent

    return Migrations(store, connect_cloud, walled_dial, lambda event: None)


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connect, "RUNG_SECONDS", 0.01)


@pytest.mark.parametrize(
    ("walled", "direction"),
    [
        pytest.param((), "source-to-sink", id="both reach each other"),
        pytest.param((Role.SOURCE,), "sink-to-source", id="only the source can be reached"),
        pytest.param((Role.SINK,), "source-to-sink", id="only the sink can be reached"),
    ],
)
def test_bytes_take_the_way_that_was_proven(
    store: StateStore, spec: Spec, tmp_path: Path, walled: tuple[Role, ...], direction: str
) -> None:
    service = migrations(store, tmp_path, *walled)
    done = service.run(service.create(spec).id)
    assert done.state == "SUCCEEDED", done
    assert done.result is not None
    assert (done.result["rung"], done.result["direction"]) == ("ipv4", direction)
    assert done.result["verified"]
    assert done.result["sent_bytes"] == SIZE
    assert (tmp_path / "sink").read_bytes() == (tmp_path / "source").read_bytes()


def test_without_a_way_nothing_is_written(store: StateStore, spec: Spec, tmp_path: Path) -> None:
    service = migrations(store, tmp_path, Role.SOURCE, Role.SINK)
    with pytest.raises(UnreachableError) as caught:
        service.run(service.create(spec).id)
    assert caught.value.reason == "PAIR_UNREACHABLE"
    assert not (tmp_path / "sink").exists()
    assert not list((tmp_path / "agents").glob("*/*.json"))
