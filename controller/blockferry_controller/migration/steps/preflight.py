"""Step `preflight`: everything that can be known to fail, before anything is made."""

from collections.abc import Iterator

from msgspec.structs import replace

from blockferry_controller.migration.context import Context, need
from blockferry_controller.migration.preflight import BEFORE
from blockferry_controller.migration.preflight.check import Check, enforce, examine
from blockferry_controller.migration.steps.attach import take_back
from blockferry_controller.notation import format_bytes


class Preflight:
    """Run all checks; what they find out, the later steps use."""

    name = "preflight"

    def do(self, context: Context) -> str:
        """Sets volume (source), type and zone (destination), image, flavor and network."""
        before = context.fact("source_volume_id")
        if isinstance(before, str):
            take_back(context, context.source, before)
        enforce(BEFORE, context)
        volume = need(context.source.volume)
        context.store.set_size(context.migration_id, volume.size_bytes)
        context.remember(source_volume_id=volume.id, source_volume_name=volume.name)
        context.remember(not_carried=[one.to_json() for one in context.not_carried])
        # The rest of it tells undo whether an earlier attempt left bytes to keep.
        context.progress = replace(context.progress, size_bytes=volume.size_bytes)
        return f"{volume.name or volume.id}, {format_bytes(volume.size_bytes)}"

    def undo(self, context: Context, *, resumable: bool) -> None:
        """Nothing was made."""


def dry_run(context: Context) -> Iterator[Check]:
    """Every check's outcome; those that build on one that failed are left out."""
    return examine(BEFORE, context)
