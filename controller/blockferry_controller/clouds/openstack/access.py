"""How the cloud answers us: each service asked once, its clock read off the answer.

Sources of what is not obvious: every answer of HTTP has `Date`, to the second (RFC 9110,
6.6.1), unless its server has no clock.
"""

from collections.abc import Mapping
from datetime import datetime, timezone
from email.utils import parsedate_to_datetime
from typing import Final

from blockferry.errors import BlockferryError
from blockferry_controller.clouds.openstack.rest import Query, Rest, Service
from blockferry_controller.clouds.port import Access

_CHEAP: Final[Mapping[Service, tuple[str, str, Query]]] = {
    Service.COMPUTE: ("compute", "/limits", {}),
    Service.VOLUME: ("block storage", "/limits", {}),
    Service.NETWORK: ("network", "/networks", {"limit": "1", "fields": "id"}),
    Service.IMAGE: ("image", "/images", {"limit": "1"}),
}
"""Name of the service, and what any user of a project may ask of it."""


class Standing:
    """What one user is in one project. Thread-safe."""

    def __init__(self, rest: Rest, roles: frozenset[str]) -> None:
        self._rest = rest
        self._roles = roles

    def access(self) -> Access:
        """See Cloud.access."""
        refusals: dict[str, BlockferryError] = {}
        ahead: list[float] = []
        for service, (name, path, query) in _CHEAP.items():
            begin = datetime.now(timezone.utc)
            try:
                headers = self._rest.headers(service, path, f"ask the {name} service", query)
            except BlockferryError as error:
                refusals[name] = error
            else:
                ahead += _ahead(headers, begin, datetime.now(timezone.utc))
        # Of several services the nearest: one host with a wrong clock is not the cloud's.
        return Access(self._roles, refusals, min(ahead, key=abs, default=None))


def _ahead(headers: Mapping[str, str], begin: datetime, end: datetime) -> list[float]:
    """Seconds by which the answer's date is outside of the time in which it was asked for."""
    try:
        there = parsedate_to_datetime(headers.get("Date", ""))
    except ValueError:
        return []
    if there.tzinfo is None:
        return []
    early, late = (there - end).total_seconds(), (there - begin).total_seconds()
    return [max(0.0, early) + min(0.0, late)]
