"""What the temp instances are made of."""

from blockferry import __version__
from blockferry_controller.migration.choose import choose_image, fitting_flavors
from blockferry_controller.migration.context import Context, Side, need
from blockferry_controller.migration.pool import cores_of
from blockferry_controller.migration.preflight.check import Warned
from blockferry_controller.migration.sizing import in_turn

_OTHERS = 3
"""Flavors tried when the cloud refuses the best: each try may take minutes."""
_COLD_BUSES = ("fdc", "ide", "sata")
"""Disks of these come and go with the machine only; libvirt refuses to attach one to it."""


def source_instance(context: Context) -> str | Warned:
    """See `place`."""
    return _instance(context, context.source)


def destination_instance(context: Context) -> str | Warned:
    """See `place`."""
    return _instance(context, context.destination)


def _instance(context: Context, side: Side) -> str | Warned:
    placed = place(side, context.spec.lanes, cores_of(context, side))
    image = need(side.image)
    bus = image.properties.get("hw_disk_bus", "").lower()
    if bus not in _COLD_BUSES:
        return placed
    return Warned(
        f"{placed}; the image asks for disks on {bus} (hw_disk_bus), which most clouds cannot "
        "attach to an instance that runs: take one with virtio or scsi, with --image"
    )


def place(side: Side, lanes: int = 1, cores: int = 1) -> str:
    """Choose image and flavors of the side's instance.

    Args:
        side: Where it is to be.
        lanes: Agents in it.
        cores: vCPUs that it had better have; with fewer it works.

    Raises:
        NotFoundError, CapacityError: see `choose`.
    """
    wanted = side.endpoint.placement
    image = choose_image(side.cloud.list_images(), wanted.image, __version__)
    fitting = fitting_flavors(side.cloud.list_flavors(), image, wanted.flavor, lanes)
    flavors = in_turn(fitting, cores, 1 + _OTHERS)
    side.image, side.flavor = image, flavors[0]
    side.other_flavors = tuple(flavors[1:])
    sized = flavors[0].vcpus >= cores > 1 and not wanted.flavor
    told = f", {cores} vCPUs or more by what copies before took" if sized else ""
    return f"{flavors[0].name}{told}, {image.name}"
