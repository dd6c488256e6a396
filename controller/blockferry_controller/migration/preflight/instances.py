"""What the temp instances are made of."""

from blockferry import __version__
from blockferry_controller.migration.choose import choose_image, fitting_flavors
from blockferry_controller.migration.context import Context, Side

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
