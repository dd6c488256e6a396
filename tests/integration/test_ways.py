"""Copies over each rung of the ladder, with real agents of this machine.

Only what an agent says that it reaches is told otherwise here; the bytes then
really take the other way.
"""

import random
import socket
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from blockferry import splice
from blockferry.errors import UnreachableError
from blockferry.identity import Identity, Role
from blockferry.limits import MIB, RELAY_ADDRESS
from blockferry.v1 import agent_pb2
from blockferry.wire import to_proto
from blockferry_controller.agents.dial import dial
from blockferry_controller.agents.port import Agent
from blockferry_controller.agents.relay import Stream
from blockferry_controller.clouds.local.cloud import LocalCloud
from blockferry_controller.engine.state import StateStore
from blockferry_controller.events import Event, Noted, Progressed
from blockferry_controller.migration.service import Migrations
from blockferry_controller.migration.steps import connect
from blockferry_controller.spec import Endpoint, Kind, Spec, Transfer

SIZE = 24 * MIB


class Walled:
    """An agent behind a firewall that lets nothing out to its peer; the controller reaches it."""

    def __init__(self, agent: Agent) -> None:
        self._agent = agent

    def __getattr__(self, name: str) -> Any:
        return getattr(self._agent, name)

    def probe_peer(
        self, addresses: Sequence[str], timeout_seconds: float
    ) -> list[agent_pb2.PeerReach]:
        if addresses == [RELAY_ADDRESS]:
            return self._agent.probe_peer(addresses, timeout_seconds)
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


def migrations(
    store: StateStore,
    tmp_path: Path,
    *walled: Role,
    listener: Callable[[Event], None] = lambda event: None,
) -> Migrations:
    def connect_cloud(_: str) -> LocalCloud:
        return LocalCloud(tmp_path / "agents")

    def walled_dial(address: str, identity: Identity, *rest: Any, **options: Any) -> Any:
        agent = dial(address, identity, *rest, **options)
        return Walled(agent) if identity.role in walled else agent

    return Migrations(store, connect_cloud, walled_dial, listener)


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


@pytest.mark.parametrize("channels", [1, 6, 16])
def test_bytes_are_relayed_where_that_is_allowed_and_nothing_else_holds(
    store: StateStore, spec: Spec, tmp_path: Path, channels: int
) -> None:
    spec = replace(spec, allow_relay=True, transfer=Transfer(channels=channels))
    events: list[Event] = []
    service = migrations(store, tmp_path, Role.SOURCE, Role.SINK, listener=events.append)
    done = service.run(service.create(spec).id)
    assert done.result is not None
    assert (done.result["rung"], done.result["direction"]) == ("relay", "source-to-sink")
    assert done.result["verified"]
    assert (tmp_path / "sink").read_bytes() == (tmp_path / "source").read_bytes()
    warned = [event.message for event in events if isinstance(event, Noted)]
    assert any("all bytes go through this controller" in message for message in warned)


def test_a_relay_that_breaks_is_taken_up_again(
    store: StateStore, spec: Spec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All that it carries is cut, twice, in the middle of the copy."""
    spec = replace(
        spec, allow_relay=True, transfer=Transfer(limit_bytes_per_second=8 * MIB, channels=3)
    )
    carried: list[socket.socket] = []
    cuts = iter((MIB, SIZE // 2))
    next_cut = next(cuts)

    def open_connection(address: str) -> socket.socket:
        carried.append(plain(address))
        return carried[-1]

    def listen(event: Event) -> None:
        nonlocal next_cut
        if isinstance(event, Progressed) and event.progress.committed_bytes >= next_cut:
            next_cut = next(cuts, 2 * SIZE)
            for one in carried:
                splice.end(one)

    plain = splice.open_connection
    monkeypatch.setattr(splice, "open_connection", open_connection)
    service = migrations(store, tmp_path, Role.SOURCE, Role.SINK, listener=listen)
    done = service.run(service.create(spec).id)
    assert done.result is not None
    assert done.result["rung"] == "relay"
    assert done.result["verified"]
    assert done.progress.reconnects == 2
    assert (tmp_path / "sink").read_bytes() == (tmp_path / "source").read_bytes()


def test_what_is_relayed_is_tls_from_end_to_end(
    store: StateStore, spec: Spec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A relay that looks sees nothing, and one that changes a byte breaks the connection."""
    text = b"nothing of this may be seen on the way. " * 26
    Path(spec.source.volume).write_bytes(text * (SIZE // len(text)))
    seen = bytearray()
    spoilt: list[bytes] = []

    def tell(stream: Any, segment: bytes) -> None:
        seen.extend(segment)
        if len(seen) > 4 * MIB and not spoilt:
            spoilt.append(segment)
            segment = bytes([segment[0] ^ 1]) + segment[1:]
        plain(stream, segment)

    plain = Stream.tell
    monkeypatch.setattr(Stream, "tell", tell)
    uncompressed = Transfer(compression="none", limit_bytes_per_second=16 * MIB)
    spec = replace(spec, allow_relay=True, transfer=uncompressed)
    service = migrations(store, tmp_path, Role.SOURCE, Role.SINK)
    done = service.run(service.create(spec).id)
    assert done.result is not None
    assert done.result["verified"]
    assert spoilt
    assert done.progress.reconnects >= 1
    assert text[:40] not in seen
    assert (tmp_path / "sink").read_bytes() == Path(spec.source.volume).read_bytes()
