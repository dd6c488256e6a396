"""What the temp instances are made of, and whether they could speak to each other."""

from blockferry import __version__
from blockferry_controller.migration.choose import choose_image, choose_network, fitting_flavors
from blockferry_controller.migration.context import Context, Side, need
from blockferry_controller.migration.preflight.check import Warned

_OTHERS = 3
"""Flavors tried when the cloud refuses the best: each try may take minutes."""


def source_instance(context: Context) -> str:
    """See `place`."""
    return place(context.source)


def destination_instance(context: Context) -> str:
    """See `place`."""
    return place(context.destination)


def place(side: Side) -> str:
    """Choose image and flavors of the side's instance.

    Raises:
        NotFoundError, CapacityError: see `choose`.
    """
    wanted = side.endpoint.placement
    image = choose_image(side.cloud.list_images(), wanted.image, __version__)
    flavors = fitting_flavors(side.cloud.list_flavors(), image, wanted.flavor)
    side.image, side.flavor = image, flavors[0]
    side.other_flavors = tuple(flavors[1 : 1 + _OTHERS])
    return f"{flavors[0].name}, {image.name}"


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
