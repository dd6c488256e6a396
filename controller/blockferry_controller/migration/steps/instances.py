"""Step `instances`: the pair, each behind a port and a security group of its own.

Groups come first and empty, then ports, so that addresses are known; then the
rules that name those addresses; then the servers. So no server ever listens
behind a rule that is wider than it must be.

What a pair of a pool has, the first of its guests makes, and the others find: they take
turns. A group lets its agents' ports be reached, of which each lane has one.
"""

import ipaddress
import socket

from blockferry.errors import CapacityError, UnreachableError
from blockferry.identity import Role
from blockferry.limits import AGENT_PORT
from blockferry_controller.clouds.deletion import delete
from blockferry_controller.clouds.port import (
    AGENT_ENDED,
    OF_INSTANCES,
    IngressRule,
    ResourceKind,
    Server,
    ServerRequest,
)
from blockferry_controller.events import Undone
from blockferry_controller.migration.context import Context, Side, need
from blockferry_controller.migration.instance_data import Trusted, instance_data
from blockferry_controller.migration.keyring import load
from blockferry_controller.migration.pool import (
    booting,
    give_up,
    known_place,
    note_place,
    stays_open,
)
from blockferry_controller.migration.sizing import next_flavor
from blockferry_controller.migration.steps import floating
from blockferry_controller.migration.ways import Direction
from blockferry_controller.notation import split_address


class BootInstances:
    """Boot one temp instance in each cloud."""

    name = "instances"

    def do(self, context: Context) -> str:
        """Sets port and server of both sides; those of a pair that has served are found."""
        with booting(context):
            if context.shared is not None:
                context.shared.touched = True
            context.both(lambda side: make_port(context, side))
            context.both(lambda side: open_port(context, side, also_source=sink_dialled(context)))
            context.both(lambda side: boot(context, side))
        return ", ".join(
            f"{side.label} in {side.cloud.name} at {need(side.port).addresses[0]}"
            for side in context.sides
        )

    def undo(self, context: Context, *, resumable: bool) -> None:
        """Deletes servers, ports and groups of this migration, and leaves a pair of a pool."""
        if context.shared is None:
            context.both(lambda side: remove(context, side))
        else:
            give_up(context, context.shared)


def remove(context: Context, side: Side) -> None:
    """Delete what carries our tag on one side, but for volumes."""
    for resource in side.cloud.find_resources(context.pair_id, OF_INSTANCES):
        # Both sides may be in one cloud: each removes what is its own.
        if resource.tag.resource.startswith(side.label):
            delete(side.cloud, resource)
            what = f"{resource.kind.value} {resource.id} in {side.cloud.name}"
            context.tell(Undone(context.migration_id, what))
    side.server = side.port = side.floating_ip = None


def make_port(context: Context, side: Side) -> None:
    """Set the side's port, closed to everybody, and its floating IP if it is to have one.

    Those of a pair of a pool are known once they are made, and its door is as it was. Nothing
    but the instance is worth looking for then: a port that somebody has deleted is of no use
    to it when made anew, and an agent that is not met ends its pair.
    """
    own, known = context.pair_id, known_place(context, side)
    if known is None:
        group = side.cloud.ensure_security_group(side.tag(own, "security-group"), ())
        network_id, ip_version = need(side.network).id, side.endpoint.placement.ip_version
        tag = side.tag(own, "port")
        side.port = side.cloud.ensure_port(tag, network_id, group, ip_version)
    else:
        side.port, side.floating_ip = known
    if any(":" not in address for address in side.port.addresses):
        side.outward = tuple(side.cloud.outward_addresses(need(side.network).id))
    if known is None:
        floating.settle(context, side)
        note_place(context, side)


def sink_dialled(context: Context) -> bool:
    """Whether a copy that the sink has dialled may still run, from before a crash."""
    return context.fact("direction") == Direction.SINK_DIALS.value


def open_port(context: Context, side: Side, *, also_source: bool = False) -> None:
    """Let in the controller, and at the sink its source; nobody else.

    Args:
        context: Both ports are known.
        side: Whose security group is set.
        also_source: Let the sink in at the source, too: it is to dial.
    """
    if context.shared is not None and context.shared.lanes > 1:
        # What one lane has found that it needs, another is not to take away.
        for one in context.sides:
            floating.look(context, one)
        also_source = stays_open(context, context.shared, also_source=also_source)
    peer = context.source if side.role is Role.SINK else context.destination
    dialled = side.role is Role.SINK or also_source
    callers = _controller_addresses(context, side)
    callers += (*peer.addresses, *peer.outward) if dialled else ()
    rules = [
        IngressRule(str(ipaddress.ip_network(one)), AGENT_PORT, _lanes(context)) for one in callers
    ]
    tag = side.tag(context.pair_id, "security-group")
    side.cloud.ensure_security_group(tag, list(dict.fromkeys(rules)))


def boot(context: Context, side: Side) -> None:
    """Set the side's server, ACTIVE; a flavor that the cloud refuses gives way to the next.

    Of a pool's pair: within `booting`.
    """
    while side.server is None:
        try:
            side.server = _boot(context, side)
        except CapacityError as error:
            following = next_flavor(need(side.flavor), side.other_flavors, error)
            if following is None:
                raise
            context.note(
                f"{side.cloud.name} refuses flavor {need(side.flavor).name} ({error.message}); "
                f"{following.name} is tried",
                level="warning",
            )
            side.take_flavor(following)


def instance_gone(context: Context, side: Side) -> UnreachableError | None:
    """The error for a server that its cloud has no more, or whose agent has ended."""
    server = need(side.server)
    there = side.cloud.find_resources(context.pair_id, {ResourceKind.SERVER})
    if any(one.id == server.id for one in there):
        said = side.cloud.console_log(server.id, 20).splitlines()
        ended = [line for line in said if AGENT_ENDED in line]
        if not ended:
            return None
        why = f"has no agent any more; it says: {ended[-1]}"
    else:
        why = "is gone"
    return UnreachableError(
        "INSTANCE_GONE",
        f"the {side.label} instance {server.id} in {side.cloud.name} {why}",
        server=server.id,
        role=side.role.value,
    )


def _boot(context: Context, side: Side) -> Server:
    addresses = need(side.port).addresses
    request = ServerRequest(
        flavor_id=need(side.flavor).id,
        image_id=need(side.image).id,
        port_id=need(side.port).id,
        user_data=instance_data(context, side, _agents(context), addresses),
    )
    return side.cloud.ensure_server(side.tag(context.pair_id, "server"), request)


def _agents(context: Context) -> list[Trusted]:
    """Whom the agents of an instance that is made now will trust, one a lane."""
    if context.shared is None:
        return [(context.lane_authority, context.lane_epoch)]
    pair = need(context.store.pairs.find(context.pair_id))
    # Whoever has had a lane before is shut out of its new agents, too.
    return [
        (load(context.store, pair.lane_id(lane.number)), max(1, lane.epoch)) for lane in pair.lanes
    ]


def _lanes(context: Context) -> int:
    return 1 if context.shared is None else context.shared.lanes


def _controller_addresses(context: Context, side: Side) -> tuple[str, ...]:
    """Our own addresses as the instance sees them, one a family that it has."""
    if context.spec.controller_address:
        return (split_address(context.spec.controller_address)[0],)
    found = (_route_address(address) for address in side.addresses)
    return tuple(dict.fromkeys(address for address in found if address))


def _route_address(target: str) -> str:
    """The local address that packets to `target` leave from; empty without a route.

    Connecting a UDP socket sends nothing: it only asks the routing table.
    """
    family = socket.AF_INET6 if ":" in target else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect((target, AGENT_PORT))
        except OSError:
            return ""
        return str(probe.getsockname()[0])
