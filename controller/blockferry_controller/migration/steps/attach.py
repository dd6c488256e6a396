"""Step `attach`: both volumes, each to its instance.

An attachment can get stuck in the instance: then only the instance's end lets go, and
another one is taken, unless others are at work in it. One that a lost instance has left
behind is taken back by its server's id, which is remembered before the cloud is asked to
attach.
"""

from typing import Final

from blockferry.errors import BlockferryError, DeadlineError, PreconditionError, UnreachableError
from blockferry_controller.clouds.port import ResourceKind
from blockferry_controller.migration.context import Context, Side, need
from blockferry_controller.migration.pool import booting, has_to_itself, quieten
from blockferry_controller.migration.steps.instances import boot

_OF_THE_INSTANCE: Final = frozenset({"ATTACH_FAILED", "ATTACHMENT_HALF"})
"""What another host, or another server, may do better."""


class AttachVolumes:
    """Attach the source volume and the new one."""

    name = "attach"

    def do(self, context: Context) -> str:
        """Both volumes are in use by the pair on return."""
        context.both(lambda side: _attach_to_some(context, side))
        return "both volumes"

    def undo(self, context: Context, *, resumable: bool) -> None:
        """Detaches both; volume or server gone is success."""
        if context.shared is not None:
            quieten(context, context.shared)
        context.both(lambda side: give_back(context, side))


def attach(context: Context, side: Side) -> None:
    """Attach this side's volume to its instance; attached already is success."""
    server_id, volume_id = need(side.server).id, need(side.volume).id
    take_back(context, side, volume_id)
    context.remember(**{_holder(side): server_id})
    side.cloud.attach_volume(server_id, volume_id)


def _attach_to_some(context: Context, side: Side) -> None:
    """Attach; where this instance cannot, another is taken, once."""
    try:
        attach(context, side)
    except PreconditionError as error:
        if error.reason not in _OF_THE_INSTANCE:
            raise
        if not has_to_itself(context):
            raise shared_with_others(context, side, error) from error
        context.note(f"{error.message} A new instance is taken.", level="warning")
        side.cloud.delete_server(need(side.server).id)
        side.server = None
        with booting(context):
            boot(context, side)
        attach(context, side)


def shared_with_others(context: Context, side: Side, error: BlockferryError) -> UnreachableError:
    """The error for an instance that is of no use here, and of use to others."""
    server_id = "" if side.server is None else side.server.id
    return UnreachableError(
        "INSTANCE_SHARED",
        f"{error.message.rstrip('.')}; others are at work in the {side.label} instance "
        f"{server_id}, so it is left to them, and another pair is to be taken. Where a cloud's "
        "instances take fewer disks than a pair has lanes, lower `lanes` of the fleet's pool",
        server=server_id,
        role=side.role.value,
        lanes=0 if context.shared is None else context.shared.lanes,
    )


def take_back(context: Context, side: Side, volume_id: str) -> None:
    """Take the volume off the instance that had it last, when that one is gone.

    Raises:
        PreconditionError: ATTACHMENT_ORPHANED, VOLUME_STATE.
    """
    before = context.fact(_holder(side))
    if not isinstance(before, str):
        return
    there = side.cloud.find_resources(context.pair_id, {ResourceKind.SERVER})
    if before not in {one.id for one in there}:
        side.cloud.detach_volume(before, volume_id)


def _holder(side: Side) -> str:
    return f"{side.label}_attached_to"


def detach(side: Side) -> None:
    """Detach this side's volume from its instance, where there is one."""
    if side.server is not None and side.volume is not None:
        side.cloud.detach_volume(side.server.id, side.volume.id)


def give_back(context: Context, side: Side) -> None:
    """Detach; where that gets stuck the instance is deleted, which lets go of all it has.

    Raises:
        UnreachableError: INSTANCE_SHARED, others are at work in it.
    """
    try:
        detach(side)
    except (PreconditionError, DeadlineError) as error:
        if not has_to_itself(context):
            raise shared_with_others(context, side, error) from error
        context.note(f"{error.message} Its instance is deleted first.", level="warning")
        side.cloud.delete_server(need(side.server).id)
        detach(side)
