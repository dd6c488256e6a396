"""Step `connect`: the agents prove how they reach each other, before the first byte.

The rungs of the ladder, each tried only when all above it failed:
    the source dials the sink at its fixed addresses, IPv6 before IPv4
    the source dials the sink at a floating IP, made for it now
    the sink dials the source likewise; only then does the source let it in
    the source dials the sink through this controller, where that is allowed

What has a floating IP already, for the controller's sake, is dialled at that one in
the first rung, too.

A controller that comes back may find jobs at work over the way of before: that
direction is tried first, so that they go on.
"""

from collections.abc import Iterator
from typing import Final

from blockferry.errors import UnreachableError
from blockferry.limits import RELAY_ADDRESS
from blockferry.v1 import agent_pb2
from blockferry_controller.migration.context import Context, Side, need
from blockferry_controller.migration.steps.floating import give, take_back
from blockferry_controller.migration.steps.instances import open_port
from blockferry_controller.migration.steps.relay import WARNING, start_relay, stop_relay
from blockferry_controller.migration.waiting import attempts
from blockferry_controller.migration.ways import Direction, Way, find_way, join, say

PROBE_SECONDS: Final = 5.0
"""Longest wait for one address: a lost SYN is sent again after 1 and after 3 s."""
RUNG_SECONDS: Final = 12.0
"""How long a rung is tried: rules of a security group take a while to be in force."""
FLOATING_SECONDS: Final = 30.0
"""How long a floating IP is tried: a router has to learn of it first."""
RELAY_SECONDS: Final = 30.0
"""How long the relay is tried, with nothing left behind it: its streams are opened now."""


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
        """Nothing was made but the relay; a floating IP goes with its port."""
        stop_relay(context)
        context.way = None


def find(context: Context) -> Way:
    """Climb down the ladder until a rung holds.

    Raises:
        UnreachableError: PAIR_UNREACHABLE, with what became of each address.
    """
    missed: list[agent_pb2.PeerReach] = []
    for direction in _ladder(context):
        for rung in (_try_known, _try_floating):
            way, reaches = rung(context, direction)
            if way is not None:
                return way
            missed += reaches
    if context.spec.allow_relay:
        way, reaches = _try_relay(context)
        if way is not None:
            return way
        missed += reaches
    raise _unreachable(context, missed)


def _ladder(context: Context) -> Iterator[Direction]:
    """Directions in turn; the source's door stands open only while it is to be dialled."""
    directions = list(Direction)
    if context.fact("direction") == Direction.SINK_DIALS.value:
        directions.reverse()
    for direction in directions:
        if directions[0] is Direction.SINK_DIALS or direction is Direction.SINK_DIALS:
            open_port(context, context.source, also_source=direction is Direction.SINK_DIALS)
        yield direction


def _try_known(
    context: Context, direction: Direction
) -> tuple[Way | None, list[agent_pb2.PeerReach]]:
    """At the addresses there are.

    Raises:
        UnreachableError: who was dialled does not answer us either: it is lost, and no
            other rung will find it.
    """
    _, dialled = _sides(context, direction)
    addresses = [join(address, context.agent_port) for address in dialled.addresses]
    tried = _told(context, direction, _try(context, direction, addresses, RUNG_SECONDS))
    if tried[0] is None:
        need(dialled.agent).describe()
    return tried


def _try_floating(
    context: Context, direction: Direction
) -> tuple[Way | None, list[agent_pb2.PeerReach]]:
    """At a floating IP made for it; then once more with one for who dials, to be let in by.

    A router may hide who dials behind an address that nobody tells us.
    """
    dialler, dialled = _sides(context, direction)
    also_source = direction is Direction.SINK_DIALS
    made: list[Side] = []
    reaches: list[agent_pb2.PeerReach] = []
    for side in (dialled, dialler):
        if side.floating_ip is None and give(context, side):
            made.append(side)
            open_port(context, dialled, also_source=also_source)
            address = join(need(dialled.floating_ip).address, context.agent_port)
            tried = _try(context, direction, [address], FLOATING_SECONDS)
            way, reaches = _told(context, direction, tried)
            if way is not None:
                return way, reaches
        if dialled.floating_ip is None:
            break
    if context.shared is not None and context.shared.lanes > 1:
        # Another lane may have found it, and of use: it goes with the pair.
        return None, reaches
    for side in made:
        take_back(context, side)
    if made:
        open_port(context, dialled, also_source=also_source)
    return None, reaches


def _try_relay(context: Context) -> tuple[Way | None, list[agent_pb2.PeerReach]]:
    relay = start_relay(context)
    way, reaches = _try(context, Direction.SOURCE_DIALS, [RELAY_ADDRESS], RELAY_SECONDS)
    if way is not None:
        context.note(WARNING, level="warning")
        return way, reaches
    trouble = f" ({relay.trouble})" if relay.trouble else ""
    context.note(f"the relay does not hold: {say(reaches)}{trouble}", level="warning")
    stop_relay(context)
    return None, reaches


def _try(
    context: Context, direction: Direction, addresses: list[str], within_seconds: float
) -> tuple[Way | None, list[agent_pb2.PeerReach]]:
    """Probe until one address answers or the time is over."""
    dialler, dialled = _sides(context, direction)
    floating_ip = dialled.floating_ip
    floating = join(floating_ip.address, context.agent_port) if floating_ip else ""
    reaches: list[agent_pb2.PeerReach] = []
    for _ in attempts(context, within_seconds):
        reaches = need(dialler.agent).probe_peer(addresses, PROBE_SECONDS)
        way = find_way(direction, reaches, floating)
        if way is not None:
            return way, reaches
    return None, reaches


def _told(
    context: Context, direction: Direction, tried: tuple[Way | None, list[agent_pb2.PeerReach]]
) -> tuple[Way | None, list[agent_pb2.PeerReach]]:
    """As it came in; a rung that does not hold is told to people."""
    way, reaches = tried
    if way is None:
        who, whom = (side.role.value for side in _sides(context, direction))
        context.note(f"the {who} does not reach the {whom}: {say(reaches)}", level="warning")
    return tried


def _sides(context: Context, direction: Direction) -> tuple[Side, Side]:
    """Who dials, and who is dialled."""
    source, sink = context.sides
    return (source, sink) if direction is Direction.SOURCE_DIALS else (sink, source)


def _unreachable(context: Context, reaches: list[agent_pb2.PeerReach]) -> UnreachableError:
    source, sink = context.source.cloud.name, context.destination.cloud.name
    allow = ", or have this controller carry the bytes with --allow-relay"
    return UnreachableError(
        "PAIR_UNREACHABLE",
        f"the agents in {source} and {sink} run but do not reach each other: {say(reaches)}. "
        "Choose networks that are routed to each other with --network, or such that floating IPs "
        "can be had for (also per cloud, in the configuration)"
        f"{'' if context.spec.allow_relay else allow}",
        source=source,
        destination=sink,
    )
