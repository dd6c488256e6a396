"""Is the new volume like the old one in all that describes it? Pure.

One comparison, made twice: before the first byte with the volume that is to be expected,
afterwards with the one that is there. What a person asked to be otherwise is no difference.
"""

from collections.abc import Iterator, Mapping, Sequence

from msgspec import Struct
from msgspec.structs import replace

from blockferry_controller.clouds.image_metadata import why_not_portable
from blockferry_controller.clouds.port import (
    MIGRATION_KEY,
    RESOURCE_KEY,
    Volume,
    VolumeType,
)
from blockferry_controller.notation import format_bytes
from blockferry_controller.spec import Spec

_OURS = frozenset({MIGRATION_KEY, RESOURCE_KEY})
_PLAIN = {
    "description": "the cloud did not keep it",
    "bootable": "the cloud did not keep it",
    "read_only": "the cloud did not let us set the flag",
    "encrypted": "the type at the destination does not encrypt",
    "multiattach": "the type at the destination does not allow it",
}
"""Attributes that must be equal, and why one would not be."""


class Difference(Struct, frozen=True):
    """Something that was not carried over.

    Attributes:
        name: Attribute of the volume; `metadata.KEY`, `image_metadata.KEY`.
        source, destination: What it is here and there; empty for nothing.
    """

    name: str
    source: str
    destination: str
    reason: str

    @property
    def text(self) -> str:
        """For people."""
        there = self.destination or "nothing"
        return f"{self.name} ({self.source or 'nothing'} becomes {there}: {self.reason})"

    def to_json(self) -> dict[str, str]:
        """As result documents have it."""
        return {
            "name": self.name,
            "source": self.source,
            "destination": self.destination,
            "reason": self.reason,
        }


class Wish(Struct, frozen=True):
    """What a person asked to be otherwise; empty: like the source.

    Attributes:
        size_bytes: The least size wanted.
        metadata: All that is wanted.
    """

    name: str
    volume_type: str
    availability_zone: str
    size_bytes: int
    metadata: Mapping[str, str]

    @classmethod
    def of(cls, spec: Spec, source: Volume) -> "Wish":
        """What `spec` says about a copy of `source`."""
        return cls(
            name=spec.destination.volume or source.name,
            volume_type=spec.to_type or spec.types.get(source.volume_type, ""),
            availability_zone=spec.to_availability_zone
            or spec.zones.get(source.availability_zone, ""),
            size_bytes=max(spec.to_size_bytes, source.size_bytes),
            metadata=source.metadata if spec.to_metadata is None else spec.to_metadata,
        )


def foresee(source: Volume, wish: Wish, kind: VolumeType | None, zone: str) -> Volume:
    """The volume to be expected.

    Args:
        source: The volume to be moved.
        wish: What it is to be.
        kind: Type chosen at the destination; None and what it does not tell: as hoped.
        zone: Chosen there; empty for the cloud's default.
    """
    portable = {
        key: value
        for key, value in source.image_metadata.items()
        if not why_not_portable(key, value)
    }
    kind = kind or VolumeType("", wish.volume_type or source.volume_type)
    return replace(
        source,
        name=wish.name,
        size_bytes=wish.size_bytes,
        volume_type=kind.name,
        availability_zone=zone,
        encrypted=source.encrypted if kind.encrypted is None else kind.encrypted,
        multiattach=source.multiattach if kind.multiattach is None else kind.multiattach,
        metadata=wish.metadata,
        image_metadata=portable,
    )


def told(lost: Sequence[Difference]) -> str:
    """All of `lost` for people; image metadata of one reason together, for it is often long."""
    groups: dict[str, list[str]] = {}
    texts = []
    for one in lost:
        kind, _, key = one.name.partition(".")
        if kind == "image_metadata" and not one.destination:
            groups.setdefault(one.reason, []).append(key)
        else:
            texts.append(one.text)
    texts += [f"image metadata {', '.join(keys)} ({why})" for why, keys in groups.items()]
    return "; ".join(texts)


def compare(source: Volume, found: Volume, wish: Wish) -> tuple[Difference, ...]:
    """Everything in which `found` is less than, or other than, source and wish."""
    return (
        *_texts(source, found, wish),
        *_flags(source, found),
        *_metadata(wish, found),
        *_image_metadata(source, found),
    )


def _texts(source: Volume, found: Volume, wish: Wish) -> Iterator[Difference]:
    if found.name != wish.name:
        yield Difference("name", wish.name, found.name, "the cloud did not keep it")
    if found.size_bytes < wish.size_bytes:
        yield Difference(
            "size",
            format_bytes(wish.size_bytes),
            format_bytes(found.size_bytes),
            "the cloud made it smaller",
        )
    if not wish.volume_type and found.volume_type != source.volume_type:
        reason = "no such type there"
        yield Difference("volume_type", source.volume_type, found.volume_type or "default", reason)
    if not wish.availability_zone and found.availability_zone != source.availability_zone:
        zone = found.availability_zone or "default"
        yield Difference("availability_zone", source.availability_zone, zone, "no such zone there")


def _flags(source: Volume, found: Volume) -> Iterator[Difference]:
    for name, reason in _PLAIN.items():
        here, there = getattr(source, name), getattr(found, name)
        # More than the source has is no loss: a type that encrypts, for example.
        if here != there and (here or not isinstance(here, bool)):
            yield Difference(name, _shown(here), _shown(there), reason)


def _shown(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _metadata(wish: Wish, found: Volume) -> Iterator[Difference]:
    for key, value in _missing(wish.metadata, found.metadata):
        if key not in _OURS:
            there = found.metadata.get(key, "")
            yield Difference(f"metadata.{key}", value, there, "the cloud did not keep it")


def _image_metadata(source: Volume, found: Volume) -> Iterator[Difference]:
    for key, value in _missing(source.image_metadata, found.image_metadata):
        reason = why_not_portable(key, value) or "the cloud did not take it"
        there = found.image_metadata.get(key, "")
        yield Difference(f"image_metadata.{key}", value, there, reason)


def _missing(wanted: Mapping[str, str], found: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    return ((key, value) for key, value in sorted(wanted.items()) if found.get(key) != value)
