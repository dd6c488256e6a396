"""The last rung: the bytes through this controller, where that was allowed."""

from blockferry import splice
from blockferry.identity import Role
from blockferry_controller.agents.relay import Relay
from blockferry_controller.migration.context import Context

WARNING = (
    "all bytes go through this controller: its own network carries the volume in and out, and "
    "sets the pace; it has to stay up until the copy is done. It sees only TLS from agent to "
    "agent, which it can neither read nor change"
)


def start_relay(context: Context) -> Relay:
    """Set the context's relay; connections of the source go to the sink from now on."""
    stop_relay(context)
    authority = context.lane_authority
    source, sink = context.source, context.destination
    context.relay = Relay(
        lambda: context.dial(
            source.agent_address,
            context.identity(Role.SOURCE),
            authority.controller(context.lane_epoch),
            authority.migration_root_pem,
            patient=False,
        ),
        lambda: splice.open_connection(sink.agent_address),
    )
    return context.relay


def stop_relay(context: Context) -> None:
    """Carry nothing any more."""
    if context.relay is not None:
        context.relay.close()
        context.relay = None
