"""What a migration takes of both clouds, against what their quotas leave."""

from blockferry.errors import CapacityError
from blockferry.limits import GIB
from blockferry_controller.clouds.port import OF_INSTANCES, Flavor, Image, ResourceKind
from blockferry_controller.migration.context import Context, Side, need
from blockferry_controller.migration.preflight.check import Warned
from blockferry_controller.migration.preflight.left import quota_left
from blockferry_controller.migration.preflight.network import families
from blockferry_controller.migration.sizing import next_flavor
from blockferry_controller.notation import format_bytes

_EGRESS_RULES = 2
"""A new security group lets all out, by IPv4 and by IPv6 (api-ref network v2.0)."""
_ROOT_LEAST_GIB = 4
"""As the cloud adapter makes a root volume for a flavor without a disk."""


def source_quota(context: Context) -> str | Warned:
    """See `check_quota`."""
    return check_quota(context, context.source)


def destination_quota(context: Context) -> str | Warned:
    """See `check_quota`."""
    return check_quota(context, context.destination)


def check_quota(context: Context, side: Side) -> str | Warned:
    """What is still to be made on one side fits, if need be with a smaller flavor.

    Raises:
        CapacityError: QUOTA_<RESOURCE>, the first that does not.
    """
    best = need(side.flavor)
    while True:
        try:
            told = _enough(context, side)
        except CapacityError as error:
            following = next_flavor(need(side.flavor), side.other_flavors, error)
            if following is None:
                raise
            side.take_flavor(following)
        else:
            break
    taken = need(side.flavor)
    if taken is best:
        return told
    return Warned(f"{told} with {taken.name}, not with {best.name}: copies may take longer")


def _enough(context: Context, side: Side) -> str:
    needed = needs(context, side)
    left = quota_left(side, needed)
    for name, amount in needed.items():
        available = left.get(name)
        if available is not None and available < amount:
            raise CapacityError(
                f"QUOTA_{_reason(name)}",
                f"the quota of {side.cloud.name} leaves {_shown(name, available)}, "
                f"{_shown(name, amount)} needed; "
                "free some or have the quota raised",
                cloud=side.cloud.name,
                resource=name,
                left=available,
                needed=amount,
            )
    told = ", ".join(_shown(name, n) for name, n in needed.items() if name in left)
    return f"enough for {told or 'what is left to do'}"


def _shown(name: str, amount: int) -> str:
    words = name.replace("_", " ")
    return f"{format_bytes(amount)} of RAM" if name == "ram_bytes" else f"{amount} {words}"


def needs(context: Context, side: Side) -> dict[str, int]:
    """By the names of Quota; what is there of an earlier attempt, or of the pair, is not."""
    flavor, image = need(side.flavor), need(side.image)
    have = _there(context, side)
    needed: dict[str, int] = {}
    if ResourceKind.SERVER not in have:
        needed |= {"instances": 1, "cores": flavor.vcpus, "ram_bytes": flavor.ram_bytes}
        needed |= _root_volume(flavor, image)
    if ResourceKind.PORT not in have:
        needed |= {"ports": 1}
    if ResourceKind.FLOATING_IP not in have and side.endpoint.placement.floating_ip == "always":
        needed |= {"floating_ips": 1}
    if ResourceKind.SECURITY_GROUP not in have:
        needed |= {"security_groups": 1, "security_group_rules": _rules(context, side)}
    if side is context.destination and ResourceKind.VOLUME not in have:
        for name, amount in new_volume(context).items():
            needed[name] = needed.get(name, 0) + amount
    return needed


def _there(context: Context, side: Side) -> set[ResourceKind]:
    """Kinds of what an earlier attempt has made, or the pair has. A first attempt has none."""
    found: set[ResourceKind] = set()
    held = None if context.shared is None else context.shared.held
    if held is not None and (held.pair.served or held.others):
        # Its row says so, or one of the others is making it. What is gone all the same is made
        # anew, or refused by the cloud.
        found |= OF_INSTANCES
    elif context.lane_epoch > 1:
        found |= {one.kind for one in side.cloud.find_resources(context.pair_id, OF_INSTANCES)}
    if context.epoch > 1 and side is context.destination:
        own = side.cloud.find_resources(context.migration_id, {ResourceKind.VOLUME})
        found |= {one.kind for one in own}
    return found


def new_volume(context: Context) -> dict[str, int]:
    """What the new volume alone takes, by the names of Quota."""
    size = context.spec.to_size_bytes or need(context.source.volume).size_bytes
    needed = {"volumes": 1, "gigabytes": -(-size // GIB)}
    kind = context.destination.volume_type
    if kind is not None and kind.name:
        needed |= {f"volumes_{kind.name}": 1, f"gigabytes_{kind.name}": needed["gigabytes"]}
    return needed


def _root_volume(flavor: Flavor, image: Image) -> dict[str, int]:
    """A flavor without a disk boots from a volume, which counts like any other."""
    if flavor.disk_bytes:
        return {}
    return {"volumes": 1, "gigabytes": max(-(-image.min_disk_bytes // GIB) + 1, _ROOT_LEAST_GIB)}


def _rules(context: Context, side: Side) -> int:
    """Into each instance comes the controller, into the sink the source, by each family.

    And by what hides the source from the sink, which has IPv4.
    """
    callers = 2 if side is context.destination else 1
    hidden = 1 if side is context.destination and 4 in families(side) else 0
    return _EGRESS_RULES + callers * max(len(families(side)), 1) + hidden


def _reason(name: str) -> str:
    """The quotas of types share one reason: names of types are not ours to put there."""
    kind = next((one for one in ("gigabytes", "volumes") if name.startswith(f"{one}_")), None)
    return f"{kind}_OF_TYPE".upper() if kind else name.upper()
