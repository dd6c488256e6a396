"""The last steps: what was borrowed is given back, what was made for a while goes."""

from typing import Final

from blockferry_controller.migration.context import Context, need
from blockferry_controller.migration.pool import give_back as give_back_pair
from blockferry_controller.migration.pool import vacate
from blockferry_controller.migration.steps.attach import give_back
from blockferry_controller.migration.steps.instances import remove
from blockferry_controller.migration.steps.reach import hang_up
from blockferry_controller.migration.steps.relay import stop_relay
from blockferry_controller.migration.steps.tunnel import close_exchange

HANDING_OVER: Final = "handing_over"
"""The fact that names a proven volume just before our tag is taken off: from
then on nothing but this step is left to do, in this attempt or another."""


class DetachVolumes:
    """Detach both volumes."""

    name = "detach"

    def do(self, context: Context) -> str:
        """Both volumes are available on return; agents of a pool have forgotten them before."""
        if context.shared is not None:
            stop_relay(context)
            vacate(context, context.shared)
        hang_up(context)
        close_exchange(context)
        context.both(lambda side: give_back(context, side))
        return "both volumes"

    def undo(self, context: Context, *, resumable: bool) -> None:
        """Detached is what undoing wants, too."""


class DeleteInstances:
    """Delete the pair with its ports and security groups, or give it back to its pool."""

    name = "delete"

    def do(self, context: Context) -> str:
        """Nothing with our tag is left on return, but for the new volume."""
        if context.shared is not None:
            return give_back_pair(context, context.shared)
        context.both(lambda side: remove(context, side))
        return "instances, ports and security groups"

    def undo(self, context: Context, *, resumable: bool) -> None:
        """Deleted is what undoing wants, too."""


class HandOver:
    """Make the new volume the user's: no tag of ours.

    The keys sign the report yet, and are destroyed with that (service.py).
    """

    name = "hand over"

    def do(self, context: Context) -> str:
        """The migration holds nothing any more on return."""
        facts = context.store.get(context.migration_id).facts
        volume_id = str(facts.get(HANDING_OVER) or need(context.destination.volume).id)
        context.remember(**{HANDING_OVER: volume_id})
        context.destination.cloud.release_volume(volume_id)
        context.written(context.store.manifests.forget(context.migration_id, context.epoch))
        return str(facts.get("destination_volume_name") or volume_id)

    def undo(self, context: Context, *, resumable: bool) -> None:
        """Nothing was made."""
