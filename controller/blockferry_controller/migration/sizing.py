"""How large instances are: by what copies before took of theirs, and what is tried else. Pure.

Rules:
* A lane has an agent of its own, and a fleet's volumes are much alike: all lanes together want
  as many times what one copy's agent took.
* What is over at once tells of its beginning and end, and is not asked.
* Of several, the median counts: one odd volume does not make all instances larger.
* An instance has processors enough when copies leave a quarter of them idle. What the
  system itself takes is no part of the sum, nor is what other machines of its host take.
"""

import math
import statistics
from collections.abc import Mapping, Sequence
from typing import Any, Final

from blockferry.errors import CapacityError
from blockferry_controller.clouds.port import Flavor

TOLD_SECONDS: Final = 10.0
"""Shorter copies tell nothing."""
FULL: Final = 0.75
"""Share of an instance's processors, from which on it is too small."""
LATELY: Final = 9
"""So many copies are asked, the newest."""


def cores_used(effort: Mapping[str, Any]) -> float | None:
    """How many processors the agent of an ended copy kept busy; None where it does not tell.

    Args:
        effort: Of the job at that end; see steps.jobs.effort.
    """
    seconds = effort["seconds"]
    return None if seconds < TOLD_SECONDS else float(effort["cpu_seconds"] / seconds)


def cores_wanted(used: Sequence[float], lanes: int) -> int:
    """The least vCPUs of the next instance; 1 where nothing is known.

    Args:
        used: What each of the last copies kept busy.
        lanes: Copies at a time.
    """
    return max(1, math.ceil(lanes * statistics.median(used) / FULL)) if used else 1


def in_turn(flavors: Sequence[Flavor], cores: int, most: int) -> list[Flavor]:
    """What is tried one after another, where `cores` vCPUs are wanted and fewer would do.

    Args:
        flavors: Those that fit, smallest first; at least one.
        cores: At least 1.
        most: At most so many; at least 2.

    Returns:
        The smallest that has them, then smaller ones, those with the most vCPUs first, and
        larger ones last: whoever is refused for want of room does not ask for more of it. The
        smallest of all is always among them: a fleet is admitted by what that takes.
    """
    enough = [flavor for flavor in flavors if flavor.vcpus >= cores]
    fewer = [flavor for flavor in flavors if flavor.vcpus < cores]
    turn = [*enough[:1], *sorted(fewer, key=lambda flavor: -flavor.vcpus), *enough[1:]][:most]
    return turn if flavors[0] in turn else [*turn[:-1], flavors[0]]


def next_flavor(refused: Flavor, others: Sequence[Flavor], error: CapacityError) -> Flavor | None:
    """Of `others` the first that is not refused for the same reason, as far as that is told."""
    if error.reason == "NO_VALID_HOST":
        return next(iter(others), None)
    if error.reason == "QUOTA_CORES":
        return next((one for one in others if one.vcpus < refused.vcpus), None)
    if error.reason == "QUOTA_RAM_BYTES":
        return next((one for one in others if one.ram_bytes < refused.ram_bytes), None)
    if error.reason in ("QUOTA_VOLUMES", "QUOTA_GIGABYTES") and not refused.disk_bytes:
        # Without a disk of its own it takes a volume for its root.
        return next((one for one in others if one.disk_bytes), None)
    return None
