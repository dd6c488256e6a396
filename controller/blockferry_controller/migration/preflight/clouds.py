"""Both clouds: not one and the same, open to us, and with a clock that is right."""

from blockferry.errors import ForbiddenError, PreconditionError
from blockferry_controller.clouds.port import Access
from blockferry_controller.migration.context import Context, Side
from blockferry_controller.migration.preflight.check import Warned
from blockferry_controller.migration.root import CLOCK_SKEW
from blockferry_controller.notation import format_duration
from blockferry_controller.spec import Kind

_POWERLESS = frozenset({"reader"})
"""Roles that may look and not touch, in OpenStack's default policies."""
_SKEW_SECONDS = 60.0


def different(context: Context) -> str:
    """Source and destination are different projects."""
    source, destination = context.source.cloud, context.destination.cloud
    if context.spec.kind is Kind.MIGRATE and source.identity == destination.identity:
        raise PreconditionError(
            "SAME_CLOUD",
            f"{source.name} and {destination.name} are the same project of the same cloud; "
            "name another cloud with --to",
            source=source.name,
            destination=destination.name,
        )
    return f"{source.name} to {destination.name}"


def source_access(context: Context) -> str:
    """See `access`."""
    return access(context.source)


def destination_access(context: Context) -> str:
    """See `access`."""
    return access(context.destination)


def access(side: Side) -> str:
    """Every service answers, and our role is more than looking on.

    Raises:
        ForbiddenError: ROLE_TOO_SMALL.
        BlockferryError: what the first service that refuses us says.
    """
    found = _asked(side)
    for error in found.refusals.values():
        raise error
    if found.roles and found.roles <= _POWERLESS:
        roles = ", ".join(sorted(found.roles))
        raise ForbiddenError(
            "ROLE_TOO_SMALL",
            f"the user of {side.cloud.name} has only the role {roles} in its project, and a "
            "migration makes instances and volumes; ask for the role member",
            cloud=side.cloud.name,
            roles=roles,
        )
    return f"every service answers, roles: {', '.join(sorted(found.roles)) or 'not told'}"


def source_clock(context: Context) -> str | Warned:
    """See `_clock`."""
    return _clock(context.source)


def destination_clock(context: Context) -> str | Warned:
    """See `_clock`."""
    return _clock(context.destination)


def _clock(side: Side) -> str | Warned:
    """The cloud's clock agrees with ours: instances take theirs from it."""
    ahead = _asked(side).clock_ahead_seconds
    if ahead is None:
        return "the cloud does not tell its time"
    if abs(ahead) <= _SKEW_SECONDS:
        return f"within {format_duration(_SKEW_SECONDS)} of ours"
    word = "ahead of" if ahead > 0 else "behind"
    limit = format_duration(CLOCK_SKEW.total_seconds())
    return Warned(
        f"the clock of {side.cloud.name} is {format_duration(abs(ahead))} {word} ours; from "
        f"{limit} on, instances would refuse our certificates: set this machine's clock (NTP)"
    )


def _asked(side: Side) -> Access:
    if side.access is None:
        side.access = side.cloud.access()
    return side.access
