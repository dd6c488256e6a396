"""The port that agents dial, where we may not reach them: `--controller-address IP:PORT`."""

import socket

from blockferry.identity import Role
from blockferry_controller.migration.context import Context, Side
from blockferry_controller.notation import split_address


def open_exchange(context: Context) -> None:
    """Listen, where a port was given; nothing was told to dial it yet.

    Raises:
        PreconditionError: CONTROLLER_PORT_TAKEN.
    """
    host, port = split_address(context.spec.controller_address)
    if not port:
        return
    close_exchange(context)
    authority = context.lane_authority
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    hellos = {role: authority.tunnel_hello(role) for role in (Role.SOURCE, Role.SINK)}
    context.exchange = context.exchanges.open(port, family, hellos)


def close_exchange(context: Context) -> None:
    """Let nobody in any more."""
    if context.exchange is not None:
        context.exchange.close()
        context.exchange = None


def tunnel_address(context: Context, side: Side) -> str:
    """Where the side's agent is reached through a connection of its own; empty while none waits."""
    exchange = context.exchange
    return exchange.address(side.role) if exchange and exchange.waiting(side.role) else ""


def say_origin(context: Context, side: Side) -> None:
    """Say where an agent dialled from that was met so: nothing but its ticket led us to it."""
    exchange = context.exchange
    if exchange is None or side.agent_address != exchange.address(side.role):
        return
    origins = exchange.origins(side.role)
    context.note(f"the {side.label} agent has dialled us from {', '.join(origins)}")
    if len(origins) > 1:
        context.note(
            f"connections with the {side.label} agent's ticket came from several addresses; unless "
            "they are of one NAT, somebody else has read the instance's user-data",
            level="warning",
        )
