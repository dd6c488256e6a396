"""Step `reach`: agents answer, prove who they are, and take keys of their own.

An agent is first met with the certificate that cloud-init carried, which
anybody who may read user-data has seen. So nothing is asked of it then but a
signing request for a key that it made itself; once the certificate for that
key is in force, only names under the migration's own root are trusted, by us
and by the peer.
"""

import contextlib
import socket
from datetime import datetime, timezone
from typing import Final

from blockferry import __version__
from blockferry.errors import (
    AuthenticationError,
    BlockferryError,
    DeadlineError,
    PreconditionError,
    UnreachableError,
)
from blockferry_controller.agents.port import Agent
from blockferry_controller.migration.console import ConsoleWatch, ending
from blockferry_controller.migration.context import Context, Side, need
from blockferry_controller.migration.silence import agent_fact
from blockferry_controller.migration.steps.floating import give
from blockferry_controller.migration.steps.instances import (
    instance_gone,
    open_port,
    sink_dialled,
)
from blockferry_controller.migration.steps.relay import stop_relay
from blockferry_controller.migration.steps.tunnel import say_origin, tunnel_address
from blockferry_controller.migration.waiting import attempts
from blockferry_controller.migration.ways import join

BOOT_SECONDS: Final = 900.0
"""Longest time from an ACTIVE server to an answering agent where the console tells nothing.
Emulated guests need 70 s to reach cloud-init's last stage; installing wheels over a slow
link adds to it. Where it tells something, each new line begins the wait anew."""
BOOT_MOST_SECONDS: Final = 7200.0
"""However much the console tells: an instance that boots again and again tells a lot."""
AGAIN_SECONDS: Final = 120.0
"""Longest wait for the agent of an instance that was met before: a reboot takes 70 s."""
LOOK_FIRST_SECONDS: Final = 2.0
LOOK_EVERY_SECONDS: Final = 10.0
CONSOLE_LINES: Final = 20
CONSOLE_LOOK_LINES: Final = 300
FLOATING_READY_SECONDS: Final = 20.0
"""Silence of all fixed addresses, once the console says that the instance is ready, after
which a floating IP is tried: a security group takes effect within a few."""
FLOATING_AFTER_SECONDS: Final = 150.0
"""The same since boot, whatever the console says: most guests have booted by then, and one
that is made too early is only given back unused."""
_TOUCH_SECONDS: Final = 2.0
NEVER_CAME: Final = "AGENT_NEVER_CAME"
SKEW_WARNING_SECONDS: Final = 60.0


class ReachAgents:
    """Connect to both agents and adopt them."""

    name = "reach"

    def do(self, context: Context) -> str:
        """Sets the agent of both sides, adopted for this epoch."""
        context.both(lambda side: None if side.agent else await_agent(context, side))
        return ", ".join(
            "a connection of its own" if side.agent_address.startswith("unix:")
            else side.agent_address
            for side in context.sides
        )  # fmt: skip

    def undo(self, context: Context, *, resumable: bool) -> None:
        """Closes the connections."""
        hang_up(context)


def hang_up(context: Context) -> None:
    """Close the connections to both agents, and those that we carry between them."""
    stop_relay(context)
    for side in context.sides:
        if side.agent is not None:
            side.agent.close()
            side.agent = None


def has_been_met(context: Context, side: Side) -> bool:
    """Whether an agent answered in the side's instance, in this attempt or an earlier one."""
    return context.fact(_met(side)) == need(side.server).id


def _met(side: Side) -> str:
    return f"{side.label}_met"


def await_agent(context: Context, side: Side, *, within_seconds: float = BOOT_SECONDS) -> None:
    """As `reach`; an instance that was met before is given no more than AGAIN_SECONDS."""
    if has_been_met(context, side):
        within_seconds = min(within_seconds, AGAIN_SECONDS)
    reach(context, side, within_seconds=within_seconds)
    side.reached = True
    context.remember(**{_met(side): need(side.server).id})


def reach(context: Context, side: Side, *, within_seconds: float = BOOT_SECONDS) -> None:
    """Set the side's agent, adopted for this epoch.

    Raises:
        UnreachableError: AGENT_NEVER_CAME, with the console's last lines; INSTANCE_GONE.
        PreconditionError: AGENT_INSTALL_FAILED, BOOT_FAILED, AGENT_VERSION.
    """
    look_at, may_float = LOOK_FIRST_SECONDS, side.floating_ip is None
    last: BlockferryError | None = None
    watch, waited = ConsoleWatch(), 0.0
    for waited in attempts(context, BOOT_MOST_SECONDS):
        for address in _places(context, side):
            try:
                side.agent = _adopt(context, side, address)
            except (UnreachableError, DeadlineError, AuthenticationError) as error:
                last = error
                continue
            side.agent_address = address
            context.remember(**{agent_fact(side.role): address})
            say_origin(context, side)
            _check(context, side)
            return
        if waited >= look_at:
            look_at = waited + LOOK_EVERY_SECONDS
            _look_at_instance(context, side, watch, waited)
        if may_float and _is_late(watch, waited):
            may_float = False
            if _float(context, side):
                watch.begin_anew(waited)
        if watch.unmet(waited) or watch.gives_up(waited, within_seconds):
            break
    raise _never_came(context, side, last, watch, waited)


def _places(context: Context, side: Side) -> list[str]:
    """Where the agent may answer, best first: its addresses, and what it has dialled itself."""
    tunnel = tunnel_address(context, side)
    return [
        *(join(one, context.agent_port) for one in side.addresses),
        *([tunnel] if tunnel else ()),
    ]


def _is_late(watch: ConsoleWatch, waited: float) -> bool:
    """Whether an agent whose fixed addresses are reached would have answered by now."""
    ready_for = watch.ready_for(waited)
    return ready_for >= FLOATING_READY_SECONDS or waited >= FLOATING_AFTER_SECONDS


def _float(context: Context, side: Side) -> bool:
    """Give the instance a floating IP, unless it can be seen that its host is reached."""
    reached = any(_is_reached(address, context.agent_port) for address in side.addresses)
    if reached or not give(context, side):
        return False
    open_port(context, side, also_source=sink_dialled(context))
    return True


def _is_reached(address: str, port: int) -> bool:
    """Whether anybody is there: a refused connection comes from a host that runs no agent yet."""
    try:
        socket.create_connection((address, port), _TOUCH_SECONDS).close()
    except ConnectionRefusedError:
        return True
    except OSError:
        return False
    return True


def _adopt(context: Context, side: Side, address: str) -> Agent:
    """Meet the agent under whichever identity it has, and give it this epoch's."""
    fresh = context.lane_epoch == 1
    try:
        agent = _meet(context, side, address, bootstrap=fresh)
    except AuthenticationError:
        agent = _meet(context, side, address, bootstrap=not fresh)
    return _sign(context, side, agent, address)


def renew(context: Context, side: Side) -> None:
    """Give an adopted agent a new key and certificate, and ourselves others for it.

    Its jobs and streams go on: a certificate counts when a connection is made.
    On an error the side has no agent, for `recover` to bring back.
    """
    agent, side.agent = need(side.agent), None
    side.agent = _sign(context, side, agent, side.agent_address)


def _sign(context: Context, side: Side, agent: Agent, address: str) -> Agent:
    """Have the agent take a certificate for this epoch; returns a connection that asks for it."""
    authority = context.lane_authority
    try:
        request = agent.create_signing_request()
        agent.adopt_identity(authority.sign(request, side.role, context.lane_epoch))
    finally:
        agent.close()
    return context.dial(
        address,
        context.identity(side.role),
        authority.controller(context.lane_epoch),
        authority.migration_root_pem,
    )


def _meet(context: Context, side: Side, address: str, *, bootstrap: bool) -> Agent:
    """Somebody who answers under the identity asked for; one try.

    Raises:
        AuthenticationError: it has the other identity, or is a stranger.
        UnreachableError, DeadlineError: nobody answers yet.
    """
    authority = context.lane_authority
    agent = context.dial(
        address,
        context.identity(side.role),
        authority.controller(context.lane_epoch),
        authority.bootstrap_root_pem if bootstrap else authority.migration_root_pem,
        bootstrap=bootstrap,
        patient=False,
    )
    try:
        agent.describe()
    except BaseException:
        agent.close()
        raise
    return agent


def _check(context: Context, side: Side) -> None:
    told = need(side.agent).describe()
    if told.version != __version__:
        raise PreconditionError(
            "AGENT_VERSION",
            f"the agent in {side.cloud.name} is version {told.version}, this controller "
            f"{__version__}; take an image with the same version, or a stock one",
            agent_version=told.version,
        )
    skew = abs((told.now.ToDatetime(timezone.utc) - datetime.now(timezone.utc)).total_seconds())
    if skew > SKEW_WARNING_SECONDS:
        context.note(
            f"the clock of the instance in {side.cloud.name} differs from ours by {skew:.0f} s",
            level="warning",
        )


def _look_at_instance(context: Context, side: Side, watch: ConsoleWatch, waited: float) -> None:
    """End the wait at once when the instance is gone, or says that it cannot go on."""
    gone = None
    # A cloud that cannot tell is no reason to stop waiting for an agent.
    with contextlib.suppress(UnreachableError, DeadlineError):
        gone = instance_gone(context, side)
    if gone is not None:
        raise gone
    log = side.cloud.console_log(need(side.server).id, CONSOLE_LOOK_LINES)
    watch.see(log, waited)
    end = ending(log)
    if end is not None:
        raise PreconditionError(
            end.reason,
            f"the instance in {side.cloud.name} says: {end.line}"
            + (f"; {end.advice} (--image)" if end.advice else ""),
            cloud=side.cloud.name,
            role=side.role.value,
            line=end.line,
        )


def _never_came(
    context: Context, side: Side, last: BlockferryError | None, watch: ConsoleWatch, waited: float
) -> UnreachableError:
    addresses = ", ".join(side.addresses)
    log = side.cloud.console_log(need(side.server).id, CONSOLE_LINES).strip()
    why = f" (last: {last.message})" if last is not None else ""
    ready = watch.unmet(waited)
    if ready:
        found = f"its console says that it is ready: {ready}. Likely causes"
    elif watch.spoken:
        still = waited - watch.changed_at
        found = f"its console has told nothing new for {still:.0f} s. Likely causes"
    else:
        found = "its console tells nothing. Likely causes"
    installing = "" if ready else ", or the instance could not install the agent (--wheels)"
    return UnreachableError(
        NEVER_CAME,
        f"no agent answered on {addresses} port {context.agent_port} in {side.cloud.name} within "
        f"{waited:.0f} s{why}; {found}: this host has no route to that network "
        "(choose another with --network, or give it a floating IP with --floating-ip always), "
        "or the security group's address is not ours as the "
        f"instance sees it (--controller-address, with a port for instances "
        f"to dial that cannot be reached){installing}. The console's last lines:\n"
        f"{log or '(the cloud gives no console log)'}",
        cloud=side.cloud.name,
        role=side.role.value,
    )
