"""A cloud that is asked once a minute for what is the same for every migration.

Each migration looks for types, flavors, images and networks before it makes anything. Of two
hundred that begin together one asks, the others have its answer.

Rules:
* Only what an operator changes is remembered, and only for FRESH_SECONDS: between the look and
  its use a migration waits longer than that anyhow. What migrations make, and quotas, never.
* An error is not remembered, nor an answer that tells of one.
"""

import threading
from collections.abc import Callable, Sequence
from typing import Any, Final, TypeVar, cast

from msgspec import Struct, field

from blockferry_controller.clock import Clock, SystemClock
from blockferry_controller.clouds.port import (
    Access,
    Cloud,
    Flavor,
    Image,
    Network,
    VolumeType,
)

FRESH_SECONDS: Final = 60.0
T = TypeVar("T")


def remembering(cloud: Cloud, clock: Clock | None = None) -> Cloud:
    """The same cloud, asked less often. Thread-safe as it is itself."""
    return cast("Cloud", _Remembering(cloud, clock or SystemClock()))


class _Answer(Struct):
    """What was told last, and when; `lock` is held while it is asked for."""

    lock: threading.Lock = field(default_factory=threading.Lock)
    told: Any = None
    told_at: float = float("-inf")


class _Remembering:
    """See the module; verbs that are not here are the cloud's own."""

    def __init__(self, cloud: Cloud, clock: Clock) -> None:
        self._cloud, self._clock = cloud, clock
        self._answers: dict[str, _Answer] = {}
        self._lock = threading.Lock()

    def __getattr__(self, verb: str) -> Any:
        return getattr(self._cloud, verb)

    def access(self) -> Access:
        """See Cloud."""
        return self._recall("access", self._cloud.access, lambda told: not told.refusals)

    def list_volume_types(self) -> Sequence[VolumeType]:
        """See Cloud."""
        return self._recall("volume types", self._cloud.list_volume_types)

    def list_volume_zones(self) -> Sequence[str]:
        """See Cloud."""
        return self._recall("volume zones", self._cloud.list_volume_zones)

    def list_flavors(self) -> Sequence[Flavor]:
        """See Cloud."""
        return self._recall("flavors", self._cloud.list_flavors)

    def list_images(self) -> Sequence[Image]:
        """See Cloud."""
        return self._recall("images", self._cloud.list_images)

    def list_networks(self) -> Sequence[Network]:
        """See Cloud."""
        return self._recall("networks", self._cloud.list_networks)

    def outward_addresses(self, network_id: str) -> Sequence[str]:
        """See Cloud."""
        return self._recall(
            f"outward of {network_id}", lambda: self._cloud.outward_addresses(network_id)
        )

    def _recall(
        self, what: str, ask: Callable[[], T], worth: Callable[[T], bool] = lambda _: True
    ) -> T:
        with self._lock:
            answer = self._answers.setdefault(what, _Answer())
        with answer.lock:
            if self._clock.monotonic() - answer.told_at >= FRESH_SECONDS:
                told = ask()
                if not worth(told):
                    return told
                answer.told, answer.told_at = told, self._clock.monotonic()
            found: T = answer.told
            return found
