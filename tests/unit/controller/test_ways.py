"""Which way is the best of those that were proven."""

import pytest

from blockferry.errors import UnreachableError
from blockferry.v1 import agent_pb2
from blockferry.wire import to_proto
from blockferry_controller.migration.ways import Direction, Rung, find_way, join, say


def reach(address: str, milliseconds: int | None) -> agent_pb2.PeerReach:
    found = agent_pb2.PeerReach(address=address, reachable=milliseconds is not None)
    if milliseconds is None:
        found.error.CopyFrom(to_proto(UnreachableError("PEER_SILENT", "nothing came back")))
    else:
        found.latency.FromMilliseconds(milliseconds)
    return found


V6, OTHER_V6, V4, FLOATING = "[fd00::2]:7443", "[fd00::3]:7443", "10.0.0.2:7443", "192.0.2.9:7443"


@pytest.mark.parametrize(
    ("reaches", "rung", "addresses"),
    [
        pytest.param([(V4, 1), (V6, 9)], Rung.IPV6, (V6, V4), id="IPv6 although slower"),
        pytest.param([(V6, 9), (OTHER_V6, 2)], Rung.IPV6, (OTHER_V6, V6), id="the quicker first"),
        pytest.param([(V6, None), (V4, 1)], Rung.IPV4, (V4,), id="what did not answer is left out"),
        pytest.param([(FLOATING, 1), (V4, 3)], Rung.IPV4, (V4, FLOATING), id="floating IP last"),
        pytest.param([(FLOATING, 1), (V4, None)], Rung.FLOATING_IP, (FLOATING,), id="floating IP"),
    ],
)
def test_the_best_way_is_taken(
    reaches: list[tuple[str, int | None]], rung: Rung, addresses: tuple[str, ...]
) -> None:
    way = find_way(Direction.SOURCE_DIALS, [reach(*one) for one in reaches], FLOATING)
    assert way is not None
    assert (way.rung, way.addresses) == (rung, addresses)
    assert way.latency_seconds == dict(reaches)[addresses[0]] / 1000  # type: ignore[operator]


def test_nothing_reached_is_no_way() -> None:
    reaches = [reach(V6, None), reach(V4, None)]
    assert find_way(Direction.SINK_DIALS, reaches) is None
    assert say(reaches) == f"{V6}: nothing came back; {V4}: nothing came back"


def test_a_way_says_who_dials_whom() -> None:
    way = find_way(Direction.SINK_DIALS, [reach(V6, 7)])
    assert str(way) == f"ipv6, sink dials source at {V6}, 7 ms"


@pytest.mark.parametrize(
    ("address", "joined"), [("fd00::2", V6), ("10.0.0.2", V4)], ids=["IPv6", "IPv4"]
)
def test_an_address_gets_the_agents_port(address: str, joined: str) -> None:
    assert join(address, 7443) == joined
