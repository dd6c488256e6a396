"""What kind of volume the destination becomes: type, zone, and what the type brings.

Whether a type encrypts or allows several attachments is not told to everybody. Then it
is only seen on the volume that was made of it, and `MakeVolume` decides.
"""

from blockferry.errors import PreconditionError
from blockferry_controller.clouds.port import Volume, VolumeType
from blockferry_controller.migration.choose import choose_volume_type, choose_volume_zone
from blockferry_controller.migration.context import Context, need
from blockferry_controller.migration.preflight.check import Warned
from blockferry_controller.spec import Kind, Spec

_KEPT = {"encryption": "encrypted", "multiattach": "multiattach"}
"""Check, and the attribute of Volume and VolumeType that it is about."""
_REASONS = {"encryption": "ENCRYPTION_LOST", "multiattach": "MULTIATTACH_LOST"}


def volume_type(context: Context) -> str | Warned:
    """Sets the destination's volume type.

    Raises:
        NotFoundError: VOLUME_TYPE_NOT_FOUND, the type asked for.
    """
    side, source = context.destination, need(context.source.volume)
    if context.spec.kind is Kind.COPY:
        return "of no account on this machine"
    wanted = context.spec.to_type or context.spec.types.get(source.volume_type, "")
    chosen = choose_volume_type(side.cloud.list_volume_types(), wanted, source.volume_type)
    side.volume_type = chosen
    if wanted or chosen.name == source.volume_type:
        return chosen.name or "the cloud's default"
    return Warned(
        f"{side.cloud.name} has no volume type {source.volume_type!r}: its default"
        f"{f' {chosen.name}' if chosen.name else ''} is taken; choose one with --to-type"
    )


def availability_zone(context: Context) -> str:
    """Sets the destination's availability zone.

    Raises:
        NotFoundError: AVAILABILITY_ZONE_NOT_FOUND, the zone asked for.
    """
    side, spec = context.destination, context.spec
    if spec.kind is Kind.COPY:
        return "of no account on this machine"
    theirs = need(context.source.volume).availability_zone
    wanted = spec.to_availability_zone or spec.zones.get(theirs, "")
    side.availability_zone = choose_volume_zone(side.cloud.list_volume_zones(), wanted, theirs)
    return side.availability_zone or "the cloud's default"


def encryption(context: Context) -> str | Warned:
    """See `_kept`."""
    return _kept(context, "encryption")


def multiattach(context: Context) -> str | Warned:
    """See `_kept`."""
    return _kept(context, "multiattach")


def _kept(context: Context, what: str) -> str | Warned:
    """What the source's type grants, the destination's does, too."""
    source, kind = need(context.source.volume), context.destination.volume_type
    attribute = _KEPT[what]
    if not getattr(source, attribute):
        return f"the source is not {attribute}"
    offered = getattr(kind, attribute) if kind is not None else None
    name = kind.name if kind is not None and kind.name else "its default type"
    if offered:
        return f"offered by {name}"
    if offered is None:
        return Warned(
            f"{context.destination.cloud.name} does not tell whether volumes of {name} are "
            f"{attribute}, as the source is; it is looked at when the volume is made"
        )
    if not context.spec.allow_downgrade:
        raise _lost(context, what, kind)
    return Warned(f"the source is {attribute}, the new volume will not be, as --allow-downgrade")


def refuse_downgrade(context: Context, made: Volume) -> None:
    """Hold the volume that was made against the source, before any byte goes there.

    Raises:
        PreconditionError: ENCRYPTION_LOST, MULTIATTACH_LOST.
    """
    source = need(context.source.volume)
    for what, attribute in _KEPT.items():
        lost = getattr(source, attribute) and not getattr(made, attribute)
        if lost and not _allowed(context.spec, what):
            raise _lost(context, what, context.destination.volume_type)


def _allowed(spec: Spec, what: str) -> bool:
    return spec.kind is Kind.COPY or spec.allow_downgrade or what in spec.skip_checks


def _lost(context: Context, what: str, kind: VolumeType | None) -> PreconditionError:
    source, name = need(context.source.volume), kind.name if kind is not None else ""
    return PreconditionError(
        _REASONS[what],
        f"volume {source.name or source.id} is {_KEPT[what]}, and volumes of type "
        f"{name or 'default'} in {context.destination.cloud.name} are not; choose a type that "
        "offers it with --to-type, or accept the loss with --allow-downgrade",
        volume=source.id,
        volume_type=name,
    )
