"""Everything that can be known to fail, or to turn out otherwise than expected.

One module a topic; here they are put in order. `BEFORE` is checked before
anything is made: `migrate --dry-run` shows it, `migrate` begins with it.
`BOOTED` is checked when the agents see both devices, before the first byte.
docs/preflight.md has a row for each.
"""

from collections.abc import Iterable
from typing import Final

from blockferry.errors import UsageError
from blockferry_controller.migration.preflight import (
    clouds,
    delivery,
    devices,
    duration,
    instances,
    kinds,
    likeness,
    network,
    quota,
    volumes,
)
from blockferry_controller.migration.preflight.check import Rule

BEFORE: Final[tuple[Rule, ...]] = (
    Rule("clouds", clouds.different),
    Rule("source-access", clouds.source_access),
    Rule("destination-access", clouds.destination_access),
    Rule("source-clock", clouds.source_clock, after=("source-access",)),
    Rule("destination-clock", clouds.destination_clock, after=("destination-access",)),
    Rule("source-volume", volumes.find_source, needed=True),
    Rule("source-state", volumes.source_is_free, after=("source-volume",)),
    Rule("destination-size", volumes.destination_size, after=("source-volume",)),
    Rule("volume-type", kinds.volume_type, after=("source-volume",)),
    Rule("availability-zone", kinds.availability_zone, after=("source-volume",)),
    Rule("encryption", kinds.encryption, after=("source-volume", "volume-type")),
    Rule("multiattach", kinds.multiattach, after=("source-volume", "volume-type")),
    Rule(
        "fidelity",
        likeness.foreseen,
        after=("source-volume", "volume-type", "availability-zone"),
    ),
    Rule("source-instance", instances.source_instance, needed=True),
    Rule("destination-instance", instances.destination_instance, needed=True),
    Rule("source-network", network.source_network, needed=True),
    Rule("destination-network", network.destination_network, needed=True),
    Rule(
        "address-family",
        network.address_family,
        after=("source-network", "destination-network"),
    ),
    Rule("source-floating-ip", network.source_floating_ip, after=("source-network",)),
    Rule(
        "destination-floating-ip",
        network.destination_floating_ip,
        after=("destination-network",),
    ),
    Rule("user-data", delivery.user_data, after=("source-instance", "destination-instance")),
    Rule(
        "wheels",
        delivery.wheels,
        after=(
            "source-instance",
            "destination-instance",
            "source-network",
            "destination-network",
        ),
    ),
    Rule("source-quota", quota.source_quota, after=("source-instance", "source-network")),
    Rule(
        "destination-quota",
        quota.destination_quota,
        after=("source-volume", "destination-instance", "destination-network", "volume-type"),
    ),
    Rule("duration", duration.assumed, after=("source-volume",)),
)
"""Made in this order, by asking only."""

BOOTED: Final[tuple[Rule, ...]] = (
    Rule("block-size", devices.block_size),
    Rule("alignment", devices.alignment),
    Rule("tail", devices.tail),
    Rule("window", duration.measured),
)
"""Made in step `probe`, in this order."""


def skippable(names: Iterable[str]) -> tuple[str, ...]:
    """`names` as a Spec keeps them: once each.

    Raises:
        UsageError: CHECK_UNKNOWN, CHECK_NEEDED.
    """
    rules = {rule.name: rule for rule in (*BEFORE, *BOOTED)}
    optional = ", ".join(name for name, rule in rules.items() if not rule.needed)
    for name in names:
        if name not in rules:
            raise UsageError(
                "CHECK_UNKNOWN",
                f"there is no check {name!r}; those that can be skipped are {optional}",
                check=name,
            )
        if rules[name].needed:
            raise UsageError(
                "CHECK_NEEDED",
                f"{name} cannot be skipped: later steps use what it finds; "
                f"those that can be skipped are {optional}",
                check=name,
            )
    return tuple(dict.fromkeys(names))
