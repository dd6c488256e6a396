"""Step `compare`: the new volume, read back, is like the old one in all but its place."""

from blockferry.errors import BlockferryError
from blockferry_controller.migration.context import Context, need
from blockferry_controller.migration.fidelity import Wish, compare, told
from blockferry_controller.spec import Kind


class CompareVolumes:
    """Set what could not be set before, and hold the new volume against the source."""

    name = "compare"

    def do(self, context: Context) -> str:
        """What was not carried is remembered for result and report; it fails nothing."""
        if context.spec.kind is Kind.COPY:
            return "bytes only"
        source, side = need(context.source.volume), context.destination
        if source.read_only:
            _lock(context)
        found = side.cloud.find_volume(need(side.volume).id)
        lost = compare(source, found, Wish.of(context.spec, source))
        foreseen = {one.name for one in context.not_carried}
        context.not_carried = lost
        context.remember(not_carried=[one.to_json() for one in lost])
        surprising = [one for one in lost if one.name not in foreseen]
        if surprising:
            context.note(f"not carried: {told(surprising)}", level="warning")
        return f"not carried: {', '.join(one.name for one in lost)}" if lost else "all equal"

    def undo(self, context: Context, *, resumable: bool) -> None:
        """Nothing was made."""


def _lock(context: Context) -> None:
    """Only now: until the copy was done, the volume had to be written."""
    try:
        context.destination.cloud.set_read_only(need(context.destination.volume).id)
    except BlockferryError as error:
        # What another controller has taken over, this one does not explain.
        context.fence()
        context.note(f"the new volume is not read-only: {error.message}", level="warning")
