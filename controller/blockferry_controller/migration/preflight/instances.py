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
    """Choose image, flavors and network of the side's instance.

    Raises:
        NotFoundError, PreconditionError, CapacityError: see `choose`.
    """
    wanted = side.endpoint.placement
    image = choose_image(side.cloud.list_images(), wanted.image, __version__)
    flavors = fitting_flavors(side.cloud.list_flavors(), image, wanted.flavor)
    network = choose_network(side.cloud.list_networks(), wanted.network)
    side.image, side.flavor, side.network = image, flavors[0], network
    side.other_flavors = tuple(flavors[1 : 1 + _OTHERS])
    return f"{flavors[0].name}, {image.name}, network {network.name}"


def address_family(context: Context) -> str | Warned:
    """Both networks have IPv4, or both have IPv6."""
    families = [need(side.network).ip_versions for side in context.sides]
    common = families[0] & families[1]
    if common:
        return " and ".join(f"IPv{version}" for version in sorted(common, reverse=True))
    told = " and ".join(
        f"{need(side.network).name} in {side.cloud.name} "
        f"({', '.join(f'IPv{version}' for version in sorted(need(side.network).ip_versions))})"
        for side in context.sides
    )
    return Warned(
        f"{told} have no family of addresses in common, so the agents will hardly reach each "
        "other; choose others with --network, or a network for each cloud in the configuration"
    )
