"""Step `attach`: both volumes, each to its instance."""

from blockferry_controller.migration.context import Context, Side, need


class AttachVolumes:
    """Attach the source volume and the new one."""

    name = "attach"

    def do(self, context: Context) -> str:
        """Both volumes are in use by the pair on return."""
        context.both(attach)
        return "both volumes"

    def undo(self, context: Context, *, resumable: bool) -> None:
        """Detaches both; volume or server gone is success."""
        context.both(detach)


def attach(side: Side) -> None:
    """Attach this side's volume to its instance; attached already is success."""
    side.cloud.attach_volume(need(side.server).id, need(side.volume).id)


def detach(side: Side) -> None:
    """Detach this side's volume from its instance, where there is one."""
    if side.server is not None and side.volume is not None:
        side.cloud.detach_volume(side.server.id, side.volume.id)
