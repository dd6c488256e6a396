"""Which volumes a fleet means. Pure.

A selection that finds nothing for something that was named is never silent: ids and plain
names without a volume are returned beside the volumes.
"""

from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase

from msgspec import Struct

from blockferry_controller.clouds.port import MIGRATION_KEY, Volume
from blockferry_controller.fleet.spec import Condition, Fleet, Override

_PATTERN_SIGNS = frozenset("*?[")


class Selected(Struct, frozen=True):
    """What was found.

    Attributes:
        volumes: In the cloud's order.
        missing: Named in the file, and no volume is so; in words.
    """

    volumes: tuple[Volume, ...]
    missing: tuple[str, ...]


def select(fleet: Fleet, volumes: Sequence[Volume]) -> Selected:
    """The volumes of `fleet` among those of its source cloud.

    What a migration made, and still carries its tag, is nobody's source.
    """
    free = [one for one in volumes if MIGRATION_KEY not in one.metadata]
    chosen = [
        one
        for one in free
        if meets(one, fleet.select) and not any(meets(one, other) for other in fleet.exclude)
    ]
    return Selected(tuple(chosen), tuple(_missing(fleet, free)))


def meets(volume: Volume, condition: Condition) -> bool:
    """Whether `condition` holds for `volume`."""
    if condition.ids or condition.names:
        named = volume.id in condition.ids or matches_any(volume.name, condition.names)
        if not named:
            return False
    most = condition.size_most_bytes
    return (
        (not condition.projects or volume.project_id in condition.projects)
        and (not condition.types or matches_any(volume.volume_type, condition.types))
        and (not condition.zones or matches_any(volume.availability_zone, condition.zones))
        and condition.size_least_bytes <= volume.size_bytes
        and (not most or volume.size_bytes <= most)
        and _has_metadata(volume, condition)
        and (not condition.instances or _is_attached(volume, condition.instances))
    )


def matches_any(text: str, patterns: Iterable[str]) -> bool:
    """Whether one of `patterns` matches, as in a shell."""
    return any(fnmatchcase(text, pattern) for pattern in patterns)


def override_of(fleet: Fleet, volume: Volume) -> Override:
    """What the file says of this very volume: by its id before its name."""
    empty = Override()
    return fleet.overrides.get(volume.id) or fleet.overrides.get(volume.name) or empty


def _has_metadata(volume: Volume, condition: Condition) -> bool:
    return all(
        key in volume.metadata and fnmatchcase(volume.metadata[key], pattern)
        for key, pattern in condition.metadata.items()
    )


def _is_attached(volume: Volume, instances: Sequence[str]) -> bool:
    return any(tie.server_id in instances for tie in volume.attachments)


def _missing(fleet: Fleet, volumes: Sequence[Volume]) -> Iterable[str]:
    ids, names = {one.id for one in volumes}, {one.name for one in volumes}
    attached = {tie.server_id for one in volumes for tie in one.attachments}
    for volume_id in fleet.select.ids:
        if volume_id not in ids:
            yield f"select.ids: {fleet.source} has no volume {volume_id}"
    for name in fleet.select.names:
        if _PATTERN_SIGNS.isdisjoint(name) and name not in names:
            yield f"select.names: {fleet.source} has no volume named {name}"
    for instance in fleet.select.instances:
        if instance not in attached:
            yield f"select.instances: no volume is attached to an instance {instance}"
    for reference in fleet.overrides:
        if reference not in ids and reference not in names:
            yield f"volumes: {fleet.source} has no volume {reference}"
