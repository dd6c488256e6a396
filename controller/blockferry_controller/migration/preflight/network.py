"""The networks of the temp instances, and whether these could speak to each other."""

from blockferry_controller.migration.choose import (
    choose_network,
    external_networks,
    no_external_network,
)
from blockferry_controller.migration.context import Context, Side, need
from blockferry_controller.migration.preflight.check import Warned
from blockferry_controller.migration.preflight.left import quota_left


def source_network(context: Context) -> str:
    """See `join_network`."""
    return join_network(context.source)


def destination_network(context: Context) -> str:
    """See `join_network`."""
    return join_network(context.destination)


def join_network(side: Side) -> str:
    """Choose the network of the side's instance.

    Raises:
        NotFoundError, PreconditionError: see `choose`.
    """
    wanted = side.endpoint.placement
    side.network = choose_network(side.cloud.list_networks(), wanted.network, wanted.ip_version)
    return f"{side.network.name}, {_listed(families(side))}"


def address_family(context: Context) -> str | Warned:
    """Both instances get IPv4 addresses, or both IPv6."""
    common = families(context.source) & families(context.destination)
    if common:
        return _listed(common)
    told = " and ".join(
        f"{need(side.network).name} in {side.cloud.name} ({_listed(families(side))})"
        for side in context.sides
    )
    return Warned(
        f"{told} have no family of addresses in common, so the agents will hardly reach each "
        "other; choose others with --network or --ip-version, for each cloud in the configuration"
    )


def families(side: Side) -> frozenset[int]:
    """Families of the addresses that the instance will get, subset of {4, 6}."""
    ip_version = side.endpoint.placement.ip_version
    return need(side.network).ip_versions & ({ip_version} if ip_version else {4, 6})


def _listed(families: frozenset[int]) -> str:
    return (
        " and ".join(f"IPv{version}" for version in sorted(families, reverse=True)) or "no subnet"
    )


def source_floating_ip(context: Context) -> str | Warned:
    """See `floating_ip`."""
    return floating_ip(context, context.source)


def destination_floating_ip(context: Context) -> str | Warned:
    """See `floating_ip`."""
    return floating_ip(context, context.destination)


def floating_ip(context: Context, side: Side) -> str | Warned:
    """The instance could have a floating IP, where it may need one.

    Raises:
        NotFoundError: NETWORK_NOT_FOUND, for the one named; NO_EXTERNAL_NETWORK, where it
            must have one.
    """
    placement = side.endpoint.placement
    if placement.floating_ip == "never":
        return "none is wanted"
    if context.shared is not None and context.shared.held.pair.served:
        return "the pair of instances has served, and is reached as it is"
    networks = external_networks(side.cloud.list_networks(), placement.external_network)
    if placement.floating_ip == "always":
        if not networks:
            raise no_external_network(side.cloud.name)
        return f"one will be made, of {networks[0].name}"
    if not _may_need_one(side):
        return "none will be needed"
    left = quota_left(side, ("floating_ips",)).get("floating_ips")
    if networks and left != 0:
        return f"one could be made of {networks[0].name}"
    why = "the quota leaves none" if networks else "there is no external network"
    return Warned(
        f"no floating IP could be made in {side.cloud.name}, {why}; it takes one if nobody "
        f"outside reaches {need(side.network).name}: free one, or choose a network that is "
        "reached from outside with --network"
    )


def _may_need_one(side: Side) -> bool:
    """A network of the project's own is usually private; a shared one is usually routed."""
    network = need(side.network)
    return 4 in families(side) and not network.shared and not network.external
