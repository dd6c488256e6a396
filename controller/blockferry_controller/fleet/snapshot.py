"""A cloud as it was read once: every check of every volume asks it, the cloud is asked once.

A fleet of 10,000 volumes would otherwise list flavors 20,000 times.
"""

from collections.abc import Collection, Sequence
from functools import cached_property
from typing import cast

from blockferry_controller.clouds.port import (
    ALL_KINDS,
    Access,
    Cloud,
    Flavor,
    Image,
    Network,
    Quota,
    Resource,
    ResourceKind,
    Volume,
    VolumeType,
)


class Snapshot:
    """The reading verbs of Cloud, each asked when it is first needed. Not thread-safe."""

    def __init__(self, cloud: Cloud) -> None:
        self._cloud = cloud

    def as_cloud(self) -> Cloud:
        """For the checks that come before anything is made: they only read."""
        return cast("Cloud", self)

    @property
    def name(self) -> str:
        """See Cloud."""
        return self._cloud.name

    @property
    def identity(self) -> str:
        """See Cloud."""
        return self._cloud.identity

    def find_volume(self, reference: str) -> Volume:
        """See Cloud; by id out of the list."""
        volume = self._by_id.get(reference)
        return self._cloud.find_volume(reference) if volume is None else volume

    def list_volumes(self) -> Sequence[Volume]:
        """See Cloud."""
        return tuple(self._by_id.values())

    def access(self) -> Access:
        """See Cloud."""
        return self._access

    def list_volume_types(self) -> Sequence[VolumeType]:
        """See Cloud."""
        return self._types

    def list_volume_zones(self) -> Sequence[str]:
        """See Cloud."""
        return self._zones

    def list_flavors(self) -> Sequence[Flavor]:
        """See Cloud."""
        return self._flavors

    def list_images(self) -> Sequence[Image]:
        """See Cloud."""
        return self._images

    def list_networks(self) -> Sequence[Network]:
        """See Cloud."""
        return self._networks

    def quota(self, names: Collection[str] = ()) -> Quota:
        """See Cloud; all at once, for whoever asks next."""
        del names
        return self._quota

    def find_resources(
        self, migration_id: str | None = None, kinds: Collection[ResourceKind] = ALL_KINDS
    ) -> Sequence[Resource]:
        """See Cloud; what has not begun has made nothing."""
        del migration_id, kinds
        return ()

    @cached_property
    def _by_id(self) -> dict[str, Volume]:
        return {volume.id: volume for volume in self._cloud.list_volumes()}

    @cached_property
    def _access(self) -> Access:
        return self._cloud.access()

    @cached_property
    def _types(self) -> Sequence[VolumeType]:
        return self._cloud.list_volume_types()

    @cached_property
    def _zones(self) -> Sequence[str]:
        return self._cloud.list_volume_zones()

    @cached_property
    def _flavors(self) -> Sequence[Flavor]:
        return self._cloud.list_flavors()

    @cached_property
    def _images(self) -> Sequence[Image]:
        return self._cloud.list_images()

    @cached_property
    def _networks(self) -> Sequence[Network]:
        return self._cloud.list_networks()

    @cached_property
    def _quota(self) -> Quota:
        return self._cloud.quota()
