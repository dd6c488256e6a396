"""What is behind the fence that a context puts around its clouds."""

from typing import Any

from tests.fakes.cloud import MemoryCloud


def memory_cloud(cloud: Any) -> MemoryCloud:
    """The one in memory that `cloud`, of a side of a context, leads to."""
    found = cloud._cloud
    assert isinstance(found, MemoryCloud)
    return found
