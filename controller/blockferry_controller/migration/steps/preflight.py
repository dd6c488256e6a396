"""Step `preflight`: everything that can be known to fail, before anything is made.

Each check has a name, decides one thing and says what it found. `migrate
--dry-run` shows them all; `migrate` stops at the first that fails.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from enum import Enum
from typing import Final

from blockferry import __version__
from blockferry.errors import BlockferryError, CapacityError, NotFoundError, PreconditionError
from blockferry.limits import GIB
from blockferry_controller.clouds.port import ResourceKind, Volume
from blockferry_controller.migration.choose import choose_flavor, choose_image, choose_network
from blockferry_controller.migration.context import Context, Side, need
from blockferry_controller.migration.spec import Kind
from blockferry_controller.notation import format_bytes


class Outcome(Enum):
    """What a check came to."""

    OK = "ok"
    WARN = "warn"
    FAIL = "fail"


@dataclass(frozen=True, slots=True)
class Check:
    """One named check and what it found."""

    name: str
    outcome: Outcome
    detail: str


class Preflight:
    """Run all checks; what they find out, the later steps use."""

    name = "preflight"

    def do(self, context: Context) -> str:
        """Sets volume (source), flavor, image and network of both sides."""
        for _name, check in CHECKS:
            check(context)
        volume = need(context.source.volume)
        context.store.set_size(context.migration_id, volume.size_bytes)
        context.remember(source_volume_id=volume.id, source_volume_name=volume.name)
        # The rest of it tells undo whether an earlier attempt left bytes to keep.
        context.progress = replace(context.progress, size_bytes=volume.size_bytes)
        return f"{volume.name or volume.id}, {format_bytes(volume.size_bytes)}"

    def undo(self, context: Context, *, resumable: bool) -> None:
        """Nothing was made."""


def dry_run(context: Context) -> Iterator[Check]:
    """Every check's outcome; stops after a failure that the others build on."""
    for name, check in CHECKS:
        try:
            yield Check(name, Outcome.OK, check(context))
        except BlockferryError as error:
            yield Check(name, Outcome.FAIL, error.message)
            if context.source.volume is None:
                return


def _clouds(context: Context) -> str:
    source, destination = context.source.cloud, context.destination.cloud
    if context.spec.kind is Kind.MIGRATE and source.identity == destination.identity:
        raise PreconditionError(
            "SAME_CLOUD",
            f"{source.name} and {destination.name} are the same project of the same cloud; "
            "name another cloud with --to",
            source=source.name,
            destination=destination.name,
        )
    return f"{source.name} to {destination.name}"


def _source_volume(context: Context) -> str:
    side = context.source
    volume = side.cloud.find_volume(side.endpoint.volume)
    ours = _servers_of_ours(context, side)
    strangers = [tie for tie in volume.attachments if tie.server_id not in ours]
    if strangers:
        server = strangers[0].server_id or "an instance"
        raise PreconditionError(
            "VOLUME_ATTACHED",
            f"volume {volume.name or volume.id} is attached to {server}; "
            "unmount it, detach it, then try again",
            volume=volume.id,
            server=server,
        )
    if volume.status != "available" and not volume.attachments:
        raise PreconditionError(
            "VOLUME_STATE",
            f"volume {volume.name or volume.id} is {volume.status}, not available; wait for it, "
            "or have it reset when it is stuck",
            volume=volume.id,
            status=volume.status,
        )
    side.volume = volume
    return f"{volume.id}, {format_bytes(volume.size_bytes)}, {volume.status}"


def _destination_volume(context: Context) -> str:
    source, size = need(context.source.volume), context.spec.to_size_bytes
    there = _existing_destination(context)
    if there is not None and there.id == source.id:
        raise PreconditionError(
            "SAME_VOLUME",
            f"{there.name} and {source.name} are the same device; name another destination",
            volume=source.id,
        )
    size = there.size_bytes if there is not None else size or source.size_bytes
    if size < source.size_bytes:
        raise too_small(source, size)
    return f"{format_bytes(size)}, {'there already' if there is not None else 'to be made'}"


def _existing_destination(context: Context) -> Volume | None:
    """What `copy` writes to if it exists; between clouds the volume is always new."""
    if context.spec.kind is not Kind.COPY:
        return None
    try:
        return context.destination.cloud.find_volume(context.spec.destination.volume)
    except NotFoundError:
        return None


def too_small(source: Volume, size_bytes: int) -> PreconditionError:
    """The error for a destination that cannot hold the source."""
    return PreconditionError(
        "DESTINATION_TOO_SMALL",
        f"the destination has {format_bytes(size_bytes)}, the source {source.name or source.id} "
        f"{format_bytes(source.size_bytes)}; give it at least that size",
        size_bytes=size_bytes,
        source_size_bytes=source.size_bytes,
    )


def place(side: Side) -> str:
    """Choose image, flavor and network of the side's instance."""
    wanted = side.endpoint.placement
    image = choose_image(side.cloud.list_images(), wanted.image, __version__)
    flavor = choose_flavor(side.cloud.list_flavors(), image, wanted.flavor)
    network = choose_network(side.cloud.list_networks(), wanted.network)
    side.image, side.flavor, side.network = image, flavor, network
    return f"{flavor.name}, {image.name}, network {network.name}"


def _quota(context: Context, side: Side) -> str:
    flavor = need(side.flavor)
    have = {resource.kind for resource in side.cloud.find_resources(context.migration_id)}
    needed: dict[str, int] = {}
    if ResourceKind.SERVER not in have:
        needed |= {"instances": 1, "cores": flavor.vcpus, "ram_bytes": flavor.ram_bytes}
    if ResourceKind.PORT not in have:
        needed |= {"ports": 1}
    if ResourceKind.SECURITY_GROUP not in have:
        needed |= {"security_groups": 1, "security_group_rules": 4}
    if side is context.destination and ResourceKind.VOLUME not in have:
        size = context.spec.to_size_bytes or need(context.source.volume).size_bytes
        needed |= {"volumes": 1, "gigabytes": -(-size // GIB)}
    left = side.cloud.quota().left
    for name, amount in needed.items():
        available = left.get(name)
        if available is not None and available < amount:
            raise CapacityError(
                f"QUOTA_{name.upper()}",
                f"the quota of {side.cloud.name} leaves {available} {name}, {amount} needed; "
                "free some or have the quota raised",
                cloud=side.cloud.name,
                resource=name,
                left=available,
                needed=amount,
            )
    return "enough for " + (
        ", ".join(f"{name} {n}" for name, n in needed.items()) or "what is left"
    )


def _servers_of_ours(context: Context, side: Side) -> set[str]:
    resources = side.cloud.find_resources(context.migration_id)
    return {resource.id for resource in resources if resource.kind is ResourceKind.SERVER}


CHECKS: Final[tuple[tuple[str, Callable[[Context], str]], ...]] = (
    ("clouds", _clouds),
    ("source volume", _source_volume),
    ("destination volume", _destination_volume),
    ("source instance", lambda context: place(context.source)),
    ("destination instance", lambda context: place(context.destination)),
    ("source quota", lambda context: _quota(context, context.source)),
    ("destination quota", lambda context: _quota(context, context.destination)),
)
