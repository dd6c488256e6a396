"""One budget of bandwidth, shared out among the volumes that move now. Pure.

A fleet has one way, so every volume that moves uses the fleet's budget and both clouds':
the smallest of them is what there is to share.
"""

from blockferry_controller.fleet.spec import Fleet

_LEAST_SHARE = 64 << 10
"""Below it, keeping a connection alive costs more than what it carries."""


def budget(fleet: Fleet, wanted: int | None) -> int:
    """Bytes per second for all volumes together; 0 is unlimited.

    Args:
        fleet: Says the budgets.
        wanted: What somebody has asked for since, in place of the fleet's own.
    """
    own = fleet.limits.bandwidth_bytes_per_second if wanted is None else wanted
    clouds = (fleet.limits.clouds.get(name) for name in (fleet.source, fleet.destination))
    all_of = [own, *(cloud.bandwidth_bytes_per_second for cloud in clouds if cloud is not None)]
    return min((one for one in all_of if one), default=0)


def share(total: int, volumes: int) -> int:
    """Bytes per second for each of `volumes`; 0 is unlimited."""
    return max(_LEAST_SHARE, total // max(1, volumes)) if total else 0
