"""The volumes of a cloud in memory: by id, by tag, and summed up, however many there are."""

from collections import Counter
from collections.abc import Iterator
from typing import Any

from blockferry.limits import GIB
from blockferry_controller.clouds.port import MIGRATION_KEY, RESOURCE_KEY, Tag, Volume

OUR_KEYS = frozenset({MIGRATION_KEY, RESOURCE_KEY})


def tag_of(volume: Volume) -> Tag | None:
    """Our tag, if it has one."""
    if not volume.metadata.keys() >= OUR_KEYS:
        return None
    return Tag(volume.metadata[MIGRATION_KEY], volume.metadata[RESOURCE_KEY])


class Shelf(dict[str, Volume]):
    """Volumes by id, as a dict; what is counted and found by tag follows what is put there."""

    def __init__(self) -> None:
        super().__init__()
        self._tagged: dict[Tag, dict[str, Volume]] = {}
        self.gigabytes: Counter[str] = Counter()
        """By the name of the type."""

    def __setitem__(self, key: str, volume: Volume) -> None:
        if key in self:
            self._forget(self[key])
        super().__setitem__(key, volume)
        self.gigabytes[volume.volume_type] += size_gib(volume)
        tag = tag_of(volume)
        if tag is not None:
            self._tagged.setdefault(tag, {})[key] = volume

    def __delitem__(self, key: str) -> None:
        self._forget(self[key])
        super().__delitem__(key)

    def pop(self, key: str, *default: Any) -> Any:
        if key not in self:
            return super().pop(key, *default)
        volume = self[key]
        del self[key]
        return volume

    def with_tag(self, tag: Tag) -> Volume | None:
        """The first that was given this tag."""
        return next(iter(self._tagged.get(tag, {}).values()), None)

    def tagged(self) -> Iterator[tuple[Tag, Volume]]:
        """All that have a tag of ours."""
        for tag, volumes in self._tagged.items():
            for volume in volumes.values():
                yield tag, volume

    def _forget(self, volume: Volume) -> None:
        self.gigabytes[volume.volume_type] -= size_gib(volume)
        tag = tag_of(volume)
        if tag is not None:
            del self._tagged[tag][volume.id]
            if not self._tagged[tag]:
                del self._tagged[tag]


def size_gib(volume: Volume) -> int:
    """What it counts for in a quota."""
    return -(-volume.size_bytes // GIB)
