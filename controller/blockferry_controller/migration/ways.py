"""Ways from agent to agent: what the bytes may travel on, best first.

Rules:
* A way counts only when the agent that would dial has proven it: a call over
  it came back, each side having accepted the other's certificate.
* IPv6 goes before IPv4 (no NAT, no private ranges that mean something else on
  the other side), and within a family the quicker address before the slower.
"""

from collections.abc import Iterable, Sequence
from enum import Enum

from msgspec import Struct

from blockferry.limits import RELAY_ADDRESS
from blockferry.v1 import agent_pb2


class Rung(Enum):
    """What kind of address carries the bytes."""

    IPV6 = "ipv6"
    IPV4 = "ipv4"
    FLOATING_IP = "floating-ip"
    RELAY = "relay"


class Direction(Enum):
    """Who dials. The bytes go from source to sink all the same."""

    SOURCE_DIALS = "source-to-sink"
    SINK_DIALS = "sink-to-source"


class Way(Struct, frozen=True):
    """A way that was proven.

    Attributes:
        addresses: `host:port` of the side that is dialled, best first, at least one;
            RELAY_ADDRESS alone where the controller carries the bytes.
        latency_seconds: TCP, TLS and one call at the first of them.
    """

    rung: Rung
    direction: Direction
    addresses: tuple[str, ...]
    latency_seconds: float

    def __str__(self) -> str:
        if self.rung is Rung.RELAY:
            return f"relay through this controller, {self.latency_seconds * 1e3:.0f} ms"
        who = (
            "source dials sink" if self.direction is Direction.SOURCE_DIALS else "sink dials source"
        )
        return (
            f"{self.rung.value}, {who} at {self.addresses[0]}, {self.latency_seconds * 1e3:.0f} ms"
        )


def find_way(
    direction: Direction, reaches: Iterable[agent_pb2.PeerReach], floating: str = ""
) -> Way | None:
    """The best way among what an agent reached; None when it reached nothing.

    Args:
        direction: Who probed, and would dial.
        reaches: As the agent told them.
        floating: The one address that is a floating IP of ours, `host:port`.
    """

    def order(reach: agent_pb2.PeerReach) -> tuple[int, float]:
        return list(Rung).index(_rung(reach.address, floating)), _seconds(reach)

    found = sorted((reach for reach in reaches if reach.reachable), key=order)
    if not found:
        return None
    return Way(
        _rung(found[0].address, floating),
        direction,
        tuple(reach.address for reach in found),
        _seconds(found[0]),
    )


def join(address: str, port: int) -> str:
    """`host:port` of an agent."""
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


def say(reaches: Sequence[agent_pb2.PeerReach]) -> str:
    """Why nothing was reached, address by address, for people."""
    return "; ".join(
        reach.error.message if reach.address in reach.error.message
        else f"{reach.address}: {reach.error.message}"
        for reach in reaches
        if not reach.reachable
    )  # fmt: skip


def _rung(address: str, floating: str) -> Rung:
    if address == RELAY_ADDRESS:
        return Rung.RELAY
    if address == floating:
        return Rung.FLOATING_IP
    return Rung.IPV6 if address.startswith("[") else Rung.IPV4


def _seconds(reach: agent_pb2.PeerReach) -> float:
    return reach.latency.ToTimedelta().total_seconds()
