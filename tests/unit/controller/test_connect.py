"""The ladder from agent to agent, climbed down in memory."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from blockferry.errors import UnreachableError
from blockferry.identity import Role
from blockferry_controller.clouds.port import Port
from blockferry_controller.engine.lease import Holder
from blockferry_controller.engine.state import StateStore
from blockferry_controller.events import Event
from blockferry_controller.migration.authority import Authority
from blockferry_controller.migration.context import Context, Side
from blockferry_controller.migration.steps import connect
from blockferry_controller.migration.steps.connect import ConnectPair
from blockferry_controller.migration.steps.floating import give
from blockferry_controller.spec import Endpoint, Kind, Placement, Spec
from tests.fakes.agent import MemoryAgent, MemoryLink
from tests.fakes.behind import memory_cloud
from tests.fakes.cloud import MemoryCloud

SOURCE, SINK = ("fd00::2", "10.0.0.2"), ("fd00::3", "10.0.0.3")


@dataclass
class Stage:
    """A pair that runs, and who of it answers where."""

    context: Context
    link: MemoryLink
    source: MemoryAgent
    sink: MemoryAgent
    events: list[Event] = field(default_factory=list)

    def listens(self, agent: MemoryAgent, *addresses: str) -> None:
        for address in addresses:
            self.link.agents[address] = agent


@pytest.fixture
def stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Stage]:
    monkeypatch.setattr(connect, "RUNG_SECONDS", 0.001)
    monkeypatch.setattr(connect, "FLOATING_SECONDS", 0.001)
    link, events = MemoryLink(), list[Event]()
    source, sink = link.agent(Role.SOURCE), link.agent(Role.SINK)
    spec = Spec(Kind.MIGRATE, Endpoint("east", "data"), Endpoint("west"))
    store = StateStore.open(f"sqlite:///{tmp_path}/state.db")
    store.create("m-test", spec, "east/data", "west")
    store.acquire("m-test", Holder.of_this_process())
    one, other = (
        Side(role, MemoryCloud(name), endpoint, port=Port(name, addresses), agent=agent)
        for role, name, endpoint, addresses, agent in (
            (Role.SOURCE, "east", spec.source, SOURCE, source),
            (Role.SINK, "west", spec.destination, SINK, sink),
        )
    )
    context = Context(
        "m-test", 1, spec, one, other, store, events.append, lambda *_, **__: source.dial(),
        authority=Authority.create("m-test"),
    )  # fmt: skip
    yield Stage(context, link, source, sink, events)
    ConnectPair().undo(context, resumable=True)
    store.close()


def facts(stage: Stage) -> dict[str, object]:
    return dict(stage.context.store.get("m-test").facts)


def test_ipv6_is_taken_where_both_answer(stage: Stage) -> None:
    stage.listens(stage.sink, "10.0.0.3:7443", "[fd00::3]:7443")
    told = ConnectPair().do(stage.context)
    assert told.startswith("ipv6, source dials sink at [fd00::3]:7443")
    assert stage.context.way is not None
    assert stage.context.way.addresses == ("[fd00::3]:7443", "10.0.0.3:7443")
    assert facts(stage)["rung"] == "ipv6"
    assert facts(stage)["direction"] == "source-to-sink"


def test_an_address_that_does_not_answer_is_not_used(stage: Stage) -> None:
    stage.listens(stage.sink, "10.0.0.3:7443")
    ConnectPair().do(stage.context)
    assert stage.context.way is not None
    assert stage.context.way.addresses == ("10.0.0.3:7443",)
    assert facts(stage)["rung"] == "ipv4"


def rules(cloud: MemoryCloud) -> set[str]:
    return {rule.remote_cidr for group in cloud.groups.values() for rule in group.rules}


def test_the_sink_dials_where_only_the_source_can_be_reached(stage: Stage) -> None:
    stage.listens(stage.source, "10.0.0.2:7443", "[fd00::2]:7443")
    told = ConnectPair().do(stage.context)
    assert told.startswith("ipv6, sink dials source at [fd00::2]:7443")
    assert facts(stage)["direction"] == "sink-to-source"
    east, west = clouds(stage)
    assert rules(east) >= {"fd00::3/128", "10.0.0.3/32"}
    assert "203.0.113.2/32" not in rules(west)
    assert not east.floating_ips
    assert not west.floating_ips, "one that was of no use is given back"
    assert any("does not reach the sink" in str(event) for event in stage.events)


def test_the_sources_door_stays_closed_while_it_dials(stage: Stage) -> None:
    stage.listens(stage.sink, "10.0.0.3:7443")
    ConnectPair().do(stage.context)
    assert not rules(memory_cloud(stage.context.source.cloud))


def clouds(stage: Stage) -> tuple[MemoryCloud, MemoryCloud]:
    source, destination = stage.context.sides
    return memory_cloud(source.cloud), memory_cloud(destination.cloud)


def test_a_floating_ip_is_made_when_no_fixed_address_answers(stage: Stage) -> None:
    east, west = clouds(stage)
    east.outward, stage.context.source.outward = ("198.51.100.9",), ("198.51.100.9",)
    stage.listens(stage.sink, "203.0.113.2:7443")
    told = ConnectPair().do(stage.context)
    assert told.startswith("floating-ip, source dials sink at 203.0.113.2:7443")
    assert facts(stage)["rung"] == "floating-ip"
    assert not east.floating_ips, "the source has no use for one"
    (made,) = west.floating_ips.values()
    assert made.port_id == "west"
    assert made.tag.resource == "destination-floating-ip"
    assert rules(west) >= {"10.0.0.2/32", "198.51.100.9/32"}, "as the outside sees the source"


def test_who_dials_gets_one_too_when_only_so_it_is_let_in(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, west = clouds(stage)
    probe = stage.source.probe_peer

    def guarded(*arguments: Any) -> Any:
        if "203.0.113.2/32" in rules(west):
            stage.listens(stage.sink, "203.0.113.2:7443")
        return probe(*arguments)

    monkeypatch.setattr(stage.source, "probe_peer", guarded)
    ConnectPair().do(stage.context)
    assert facts(stage)["rung"] == "floating-ip"
    assert facts(stage)["direction"] == "source-to-sink"


def test_the_sink_dials_a_floating_ip_of_the_source(stage: Stage) -> None:
    east, west = clouds(stage)
    west.routed = False
    stage.listens(stage.source, "203.0.113.2:7443")
    told = ConnectPair().do(stage.context)
    assert told.startswith("floating-ip, sink dials source at 203.0.113.2:7443")
    assert [one.tag.resource for one in east.floating_ips.values()] == ["source-floating-ip"]
    assert any("no floating IP for the destination instance" in str(one) for one in stage.events)


def test_one_that_is_there_already_is_dialled_at_once(stage: Stage) -> None:
    stage.listens(stage.sink, "203.0.113.2:7443")
    assert give(stage.context, stage.context.destination)
    ConnectPair().do(stage.context)
    assert facts(stage)["rung"] == "floating-ip"
    assert not any("does not reach" in str(event) for event in stage.events)


def test_none_is_made_where_none_is_wanted(stage: Stage) -> None:
    for side in stage.context.sides:
        side.endpoint = replace(side.endpoint, placement=Placement(floating_ip="never"))
    stage.listens(stage.sink, "203.0.113.2:7443")
    with pytest.raises(UnreachableError):
        ConnectPair().do(stage.context)
    assert all("ensure_floating_ip" not in cloud.verbs for cloud in clouds(stage))


def test_a_resumed_pair_keeps_its_direction_while_it_holds(stage: Stage) -> None:
    stage.listens(stage.source, "10.0.0.2:7443")
    ConnectPair().do(stage.context)
    stage.listens(stage.sink, "10.0.0.3:7443")
    ConnectPair().do(stage.context)
    assert facts(stage)["direction"] == "sink-to-source"
    del stage.link.agents["10.0.0.2:7443"]
    ConnectPair().do(stage.context)
    assert facts(stage)["direction"] == "source-to-sink"
    assert not rules(memory_cloud(stage.context.source.cloud)) & {"fd00::3/128", "10.0.0.3/32"}


def test_a_pair_that_reaches_each_other_nowhere_says_what_was_tried(stage: Stage) -> None:
    with pytest.raises(UnreachableError) as caught:
        ConnectPair().do(stage.context)
    assert caught.value.reason == "PAIR_UNREACHABLE"
    for address in (*SINK, *SOURCE):
        assert address in caught.value.message
    assert "--network" in caught.value.message
    assert "rung" not in facts(stage)


def allow_relay(stage: Stage) -> None:
    stage.context.spec = replace(stage.context.spec, allow_relay=True)


def test_a_pair_that_reaches_each_other_nowhere_is_relayed_where_allowed(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connect, "_try_known", lambda *_: (None, []))
    monkeypatch.setattr(connect, "_try_floating", lambda *_: (None, []))
    allow_relay(stage)
    told = ConnectPair().do(stage.context)
    assert told.startswith("relay through this controller")
    assert (facts(stage)["rung"], facts(stage)["direction"]) == ("relay", "source-to-sink")
    assert any("all bytes go through this controller" in str(event) for event in stage.events)
    relay = stage.context.relay
    assert relay is not None
    ConnectPair().undo(stage.context, resumable=True)
    assert stage.context.relay is None


def test_nothing_is_relayed_while_a_direct_way_holds(stage: Stage) -> None:
    stage.listens(stage.sink, "10.0.0.3:7443")
    allow_relay(stage)
    ConnectPair().do(stage.context)
    assert facts(stage)["rung"] == "ipv4"
    assert stage.context.relay is None


def test_a_relay_that_does_not_hold_is_told_and_stopped(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connect, "RELAY_SECONDS", 0.001)
    for _ in range(20):
        stage.source.fail("relay", UnreachableError("AGENT_UNREACHABLE", "the agent is away"))
    allow_relay(stage)
    with pytest.raises(UnreachableError) as caught:
        ConnectPair().do(stage.context)
    assert caught.value.reason == "PAIR_UNREACHABLE"
    assert any("relay does not hold" in str(event) for event in stage.events)
    assert stage.context.relay is None


def test_a_sink_that_comes_late_is_still_found(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connect, "RUNG_SECONDS", 5.0)
    stage.listens(stage.sink, "10.0.0.3:7443")
    stage.sink.down = True
    probe = stage.source.probe_peer

    def late(*arguments: object) -> object:
        reaches = probe(*arguments)  # type: ignore[arg-type]
        stage.sink.down = False
        return reaches

    monkeypatch.setattr(stage.source, "probe_peer", late)
    ConnectPair().do(stage.context)
    assert facts(stage)["rung"] == "ipv4"
