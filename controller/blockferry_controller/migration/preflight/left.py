"""What quotas leave: several checks ask, each cloud is asked once in an attempt."""

from collections.abc import Collection, Mapping

from blockferry_controller.migration.context import Side


def quota_left(side: Side, names: Collection[str]) -> Mapping[str, int | None]:
    """What is left, by those of `names` (see Quota) that the cloud tells of.

    Raises:
        BlockferryError: as Cloud.quota.
    """
    unasked = [name for name in names if name not in side.quota_left]
    if unasked:
        side.quota_left |= side.cloud.quota(unasked).left
    return {name: side.quota_left[name] for name in names if name in side.quota_left}
