"""What quotas leave a fleet, and what of it they had not counted when they were read.

Rules:
* One call a cloud serves all that wait; none where nothing does.
* What ends gives back what others wait for, if they do: then it is read soon. That a quota has
  less left for another reason is noticed later, or by a migration's own preflight, which takes
  nothing and counts as no attempt.
* What a volume takes is charged to it here until a quota is read that has counted it. It has so
  a moment after its migration has made the new volume: the instances are asked for next.
"""

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from typing import Final

from blockferry.errors import BlockferryError
from blockferry_controller.engine.fleet_records import ItemRecord
from blockferry_controller.engine.state import StateStore
from blockferry_controller.fleet.admission import Why
from blockferry_controller.fleet.ferry import Ferry
from blockferry_controller.fleet.spec import Fleet
from blockferry_controller.migration.steps.volume import MakeVolume

_log = logging.getLogger(__name__)
_SECONDS: Final = 30.0
_AGAIN_SECONDS: Final = 3.0


class Quotas:
    """Those of both clouds of a fleet. Not thread-safe.

    Attributes:
        left: As last read, see Left; of a cloud that did not tell it, nothing.
        pairs: Of instances, that were there then.
    """

    def __init__(
        self,
        store: StateStore,
        ferry: Ferry,
        fleet_id: str,
        fleet: Fleet,
        now: Callable[[], datetime],
    ) -> None:
        self._store, self._ferry, self._fleet_id, self._fleet = store, ferry, fleet_id, fleet
        self._now = now
        self.left: dict[str, Mapping[str, int | None]] = {}
        self.pairs: frozenset[str] = frozenset()
        self._counted: frozenset[str] = frozenset()
        self._read_at: datetime | None = None
        self._moving = 0

    def read(self, waiting: Sequence[ItemRecord], moving: int) -> None:
        """Ask both clouds, when it is time to.

        Args:
            waiting: What wants to begin.
            moving: How many volumes run.
        """
        now = self._now()
        ended, self._moving = moving < self._moving, moving
        held = any(item.why == Why.QUOTA.value for item in waiting)
        age = (now - self._read_at).total_seconds() if self._read_at else None
        soon = _AGAIN_SECONDS if ended and held else _SECONDS
        if not waiting or (age is not None and age < soon):
            # Soon, then: what has ended stays noticed until the quota is read.
            self._moving += ended
            return
        self._read_at = now
        # Before the clouds are asked: they have counted at least these.
        self._counted = self._store.crew.through(self._fleet_id, MakeVolume.name)
        known = self._store.pairs.of(self._fleet_id) if self._fleet.pool else []
        self.pairs = frozenset(pair.id for pair in known if not pair.booting)
        for name in (self._fleet.source, self._fleet.destination):
            try:
                with self._ferry.cloud(name) as cloud:
                    self.left[name] = cloud.quota().left
            except BlockferryError as error:
                # Each migration asks for itself before it makes anything.
                _log.info("the quota of %s is not known now: %s", name, error)
                self.left.pop(name, None)

    def uncounted(self, running: Iterable[str]) -> frozenset[str]:
        """Those of `running`, ids of migrations, that take what was left as last read."""
        return frozenset(running).difference(self._counted)
