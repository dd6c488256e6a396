"""Floating IPs for the pair.

Rules:
* One is made only when no fixed address answers, or when `--floating-ip always` says so;
  with `never` none is. It is taken back as soon as it turns out to be of no use, else
  with the port.
* `auto` never fails because of it: why there is none is told, and the ladder goes on.
"""

from typing import Final

from blockferry.errors import BlockferryError
from blockferry_controller.clouds.port import Network, ResourceKind, Tag
from blockferry_controller.events import Undone
from blockferry_controller.migration.choose import external_networks, no_external_network
from blockferry_controller.migration.context import Context, Side, need
from blockferry_controller.migration.pool import known_place, note_place

_NETWORKS: Final = 8
"""External networks tried at most: a project is seldom joined to more than one."""


def settle(context: Context, side: Side) -> None:
    """Set the side's floating IP when it is to have one from the start, or has one.

    Raises:
        BlockferryError: `make`'s, where there must be one.
    """
    if side.endpoint.placement.floating_ip == "always":
        make(context, side)
    elif context.lane_epoch > 1 and _is_there(context, side):
        give(context, side)


def look(context: Context, side: Side) -> None:
    """Set the side's floating IP when another lane of its pair has made one."""
    known = known_place(context, side)
    if known is not None and side.floating_ip is None:
        side.floating_ip = known[1]


def give(context: Context, side: Side) -> bool:
    """Make one where it may be; returns whether there is one now."""
    if side.floating_ip is None and _may_have(side):
        try:
            make(context, side)
        except BlockferryError as error:
            context.check()
            context.note(f"no floating IP for the {side.label} instance: {error.message}")
    return side.floating_ip is not None


def make(context: Context, side: Side) -> None:
    """Set the side's floating IP, of the first external network that has one for its port.

    Raises:
        NotFoundError: NETWORK_NOT_FOUND, NO_EXTERNAL_NETWORK.
        BlockferryError: what the last of the networks came to.
    """
    tag, last = _tag(context, side), no_external_network(side.cloud.name)
    networks = external_networks(side.cloud.list_networks(), _wanted(side))
    for network in networks[:_NETWORKS]:
        try:
            side.floating_ip = side.cloud.ensure_floating_ip(tag, need(side.port), network.id)
        except BlockferryError as error:
            context.check()
            last = error
            continue
        note_place(context, side)
        context.note(_told(side, network))
        return
    raise last


def take_back(context: Context, side: Side) -> None:
    """Delete the side's floating IP, if it has one."""
    if side.floating_ip is not None:
        side.cloud.delete_floating_ip(side.floating_ip.id)
        what = f"floating IP {side.floating_ip.address} in {side.cloud.name}"
        context.tell(Undone(context.migration_id, what))
        side.floating_ip = None
        note_place(context, side)


def _may_have(side: Side) -> bool:
    ipv4 = any(":" not in address for address in need(side.port).addresses)
    return ipv4 and side.endpoint.placement.floating_ip != "never"


def _is_there(context: Context, side: Side) -> bool:
    found = side.cloud.find_resources(context.pair_id, {ResourceKind.FLOATING_IP})
    return any(one.tag == _tag(context, side) for one in found)


def _tag(context: Context, side: Side) -> Tag:
    return side.tag(context.pair_id, "floating-ip")


def _wanted(side: Side) -> str:
    return side.endpoint.placement.external_network


def _told(side: Side, network: Network) -> str:
    address = need(side.floating_ip).address
    return f"the {side.label} instance has the floating IP {address} of {network.name} for a while"
