"""What a volume becomes, and by which rule. Pure."""

import re
from collections.abc import Callable, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Final

from msgspec import Struct

from blockferry_controller.clouds.port import Volume
from blockferry_controller.fleet.selection import meets
from blockferry_controller.fleet.spec import (
    Fleet,
    Mappings,
    MetadataRule,
    Override,
    Renaming,
    Unmapped,
)

_FIELD = re.compile(r"\{([a-z]+)\}")
BY_DEFAULT: Final = "default"


class Mapped(Struct, frozen=True):
    """One thing of the new volume.

    Attributes:
        value: Empty: as `migrate` chooses without being told.
        by: What decided it: `override`, `map.type.rules[0]: ssd* -> premium`, `default`.
        refused: Why it has no value though it must; empty when all is well.
    """

    value: str
    by: str
    refused: str = ""


class Becomes(Struct, frozen=True):
    """All that is mapped of one volume. `metadata` None: as the source's."""

    type: Mapped
    zone: Mapped
    name: Mapped
    metadata: Mapping[str, str] | None


def becomes(fleet: Fleet, volume: Volume, override: Override) -> Becomes:
    """What `volume` becomes at the destination."""
    maps = fleet.mappings
    return Becomes(
        _one("type", maps.types, volume.volume_type, volume, override.type),
        _one("zone", maps.zones, volume.availability_zone, volume, override.zone),
        _one("name", maps.names, volume.name, volume, override.name),
        _metadata(maps, volume, override),
    )


def _one(what: str, renaming: Renaming, theirs: str, volume: Volume, override: str) -> Mapped:
    if override:
        return Mapped(override, "override")
    for at, rule in enumerate(renaming.rules):
        if fnmatchcase(theirs, rule.match) and meets(volume, rule.where):
            by = f"map.{what}.rules[{at}]: {rule.match} -> {rule.to}"
            return Mapped(_filled(rule.to, volume), by)
    if renaming.unmapped is Unmapped.FAIL:
        said = f"no rule of map.{what} matches {theirs or 'none'}, and unmapped is fail"
        return Mapped("", f"map.{what}.unmapped", said)
    return Mapped("", BY_DEFAULT)


def _metadata(maps: Mappings, volume: Volume, override: Override) -> Mapping[str, str] | None:
    if not maps.metadata and not maps.set_metadata and not override.metadata:
        return None
    kept: dict[str, str] = {}
    for key, value in volume.metadata.items():
        rule = _first(maps.metadata, key)
        if not rule.drop:
            kept[_fill(rule.to, {"key": key})] = _filled(rule.value, volume, value=value)
    added = {key: _filled(text, volume) for key, text in maps.set_metadata.items()}
    return {**kept, **added, **override.metadata}


def _first(rules: Sequence[MetadataRule], key: str) -> MetadataRule:
    return next((rule for rule in rules if fnmatchcase(key, rule.match)), MetadataRule("*"))


def _filled(template: str, volume: Volume, **more: str) -> str:
    fields = {
        "name": volume.name,
        "id": volume.id,
        "type": volume.volume_type,
        "zone": volume.availability_zone,
    }
    return _fill(template, {**fields, **more})


def _fill(template: str, fields: Mapping[str, str]) -> str:
    """Put fields in at once: a volume named `{id}` stays what it is called."""
    put: Callable[[re.Match[str]], str] = lambda match: fields[match.group(1)]  # noqa: E731
    return _FIELD.sub(put, template)
