"""Step `connect`: the agents prove how they reach each other, before the first byte.

The rungs of the ladder, each tried only when all above it failed:
    the source dials the sink at its fixed addresses, IPv6 before IPv4
"""

from typing import Final

from blockferry.errors import UnreachableError
from blockferry.v1 import agent_pb2
from blockferry_controller.migration.context import Context, need
from blockferry_controller.migration.waiting import attempts
from blockferry_controller.migration.ways import Direction, Way, find_way, join, say

PROBE_SECONDS: Final = 5.0
"""Longest wait for one address: a lost SYN is sent again after 1 and after 3 s."""
RUNG_SECONDS: Final = 12.0
"""How long a rung is tried: rules of a security group take a while to be in force."""


class ConnectPair:
    """Find the best way for the bytes."""

    name = "connect"

    def do(self, context: Context) -> str:
        """Sets the way, proven just now."""
        way = find(context)
        context.way = way
        context.remember(
            rung=way.rung.value, direction=way.direction.value, way=list(way.addresses)
        )
        return str(way)

    def undo(self, context: Context, *, resumable: bool) -> None:
        """Nothing was made."""
        context.way = None


def find(context: Context) -> Way:
    """Climb down the ladder until a rung holds.

    Raises:
        UnreachableError: PAIR_UNREACHABLE, with what became of each address.
    """
    way, reaches = _try_fixed(context)
    if way is None:
        raise _unreachable(context, reaches)
    return way


def _try_fixed(context: Context) -> tuple[Way | None, list[agent_pb2.PeerReach]]:
    addresses = [join(address) for address in need(context.destination.port).addresses]
    return _try(context, Direction.SOURCE_DIALS, addresses)


def _try(
    context: Context, direction: Direction, addresses: list[str], floating: str = ""
) -> tuple[Way | None, list[agent_pb2.PeerReach]]:
    """Probe until one address answers or the rung's time is over."""
    pushes = direction is Direction.SOURCE_DIALS
    agent = need(context.source.agent if pushes else context.destination.agent)
    reaches: list[agent_pb2.PeerReach] = []
    for _ in attempts(context, RUNG_SECONDS):
        reaches = agent.probe_peer(addresses, PROBE_SECONDS)
        way = find_way(direction, reaches, floating)
        if way is not None:
            return way, reaches
    return None, reaches


def _unreachable(context: Context, reaches: list[agent_pb2.PeerReach]) -> UnreachableError:
    source, sink = context.source.cloud.name, context.destination.cloud.name
    return UnreachableError(
        "PAIR_UNREACHABLE",
        f"the agents in {source} and {sink} run but do not reach each other: {say(reaches)}. "
        "Choose networks that are routed to each other with --network (also per cloud, in the "
        "configuration)",
        source=source,
        destination=sink,
    )
