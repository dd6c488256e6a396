"""Step `instances`: the pair, each behind a port and a security group of its own.

Groups come first and empty, then ports, so that addresses are known; then the
rules that name those addresses; then the servers. So no server ever listens
behind a rule that is wider than it must be.
"""

import ipaddress
import socket
from collections.abc import Iterator
from typing import Any, Final

from blockferry.identity import Role
from blockferry.limits import AGENT_PORT
from blockferry_controller.clouds.port import IngressRule, Port, ResourceKind, ServerRequest
from blockferry_controller.migration.choose import is_prepared
from blockferry_controller.migration.context import Context, Side, need
from blockferry_controller.migration.events import Undone
from blockferry_controller.migration.spec import Kind
from blockferry_controller.migration.user_data import build_user_data

DEAD_MAN_SECONDS: Final = 900


class BootInstances:
    """Boot one temp instance in each cloud."""

    name = "instances"

    def do(self, context: Context) -> str:
        """Sets port and server of both sides."""
        context.both(lambda side: make_port(context, side))
        context.both(lambda side: _open_port(context, side))
        context.both(lambda side: boot(context, side))
        return ", ".join(
            f"{side.label} in {side.cloud.name} at {need(side.port).addresses[0]}"
            for side in context.sides
        )

    def undo(self, context: Context, *, resumable: bool) -> None:
        """Deletes servers, ports and groups of this migration."""
        context.both(lambda side: remove(context, side))


def remove(context: Context, side: Side) -> None:
    """Delete what carries our tag on one side, but for volumes."""
    delete = {
        ResourceKind.SERVER: side.cloud.delete_server,
        ResourceKind.PORT: side.cloud.delete_port,
        ResourceKind.SECURITY_GROUP: side.cloud.delete_security_group,
    }
    for resource in side.cloud.find_resources(context.migration_id):
        # Both sides may be in one cloud: each removes what is its own.
        if resource.kind in delete and resource.tag.resource.startswith(side.label):
            delete[resource.kind](resource.id)
            what = f"{resource.kind.value} {resource.id} in {side.cloud.name}"
            context.tell(Undone(context.migration_id, what))
    side.server = side.port = None


def make_port(context: Context, side: Side) -> None:
    """Set the side's port, closed to everybody."""
    cloud, own = side.cloud, context.migration_id
    group = cloud.ensure_security_group(side.tag(own, "security-group"), ())
    side.port = cloud.ensure_port(side.tag(own, "port"), need(side.network).id, group)


def _open_port(context: Context, side: Side) -> None:
    rules = [
        *_rules(_controller_addresses(context, need(side.port))),
        *(_rules(need(context.source.port).addresses) if side.role is Role.SINK else ()),
    ]
    tag = side.tag(context.migration_id, "security-group")
    side.cloud.ensure_security_group(tag, list(dict.fromkeys(rules)))


def boot(context: Context, side: Side) -> None:
    """Set the side's server, ACTIVE."""
    image = need(side.image)
    request = ServerRequest(
        flavor_id=need(side.flavor).id,
        image_id=image.id,
        port_id=need(side.port).id,
        user_data=build_user_data(
            config=_agent_config(context, side),
            files=_agent_files(context, side),
            prepared=is_prepared(image),
            wheels=side.endpoint.placement.wheels,
        ),
    )
    side.server = side.cloud.ensure_server(side.tag(context.migration_id, "server"), request)


def _agent_config(context: Context, side: Side) -> dict[str, Any]:
    return {
        "version": 1,
        "migration_id": context.migration_id,
        "role": side.role.value,
        "epoch": context.epoch,
        "listen": list(need(side.port).addresses),
        "port": AGENT_PORT,
        "certificate": "bootstrap.crt",
        "key": "bootstrap.key",
        "authority": "authority.crt",
        "state_directory": "/var/lib/blockferry",
        "dead_man_seconds": DEAD_MAN_SECONDS,
        # An instance that nobody needs any more costs money. `copy` has agents here.
        "power_off": context.spec.kind is Kind.MIGRATE,
    }


def _agent_files(context: Context, side: Side) -> dict[str, bytes]:
    authority = need(context.authority)
    bootstrap = authority.bootstrap(side.role, context.epoch)
    return {
        "bootstrap.crt": bootstrap.certificate_pem,
        "bootstrap.key": bootstrap.key_pem,
        "authority.crt": authority.migration_root_pem,
    }


def _rules(addresses: tuple[str, ...]) -> Iterator[IngressRule]:
    for address in addresses:
        yield IngressRule(str(ipaddress.ip_network(address)), AGENT_PORT)


def _controller_addresses(context: Context, port: Port) -> tuple[str, ...]:
    """Our own addresses as the instance sees them, one a family that it has."""
    if context.spec.controller_address:
        return (context.spec.controller_address,)
    found = (_route_address(address) for address in port.addresses)
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
