"""Faults that a test injects into an embedded cloud.

Request faults are consumed in the order in which they were given, one per
matching request. State faults change what becomes of a volume or a server.
"""

import re
import threading
import time
from dataclasses import dataclass
from typing import Any

from tests.sim.http import ApiError, ConnectionDropped


@dataclass
class RequestFault:
    """What happens to one request instead of, before or after its answer."""

    service: str
    method: str
    path: re.Pattern[str]
    left: int | None
    error: ApiError | None = None
    delay_seconds: float = 0
    drop_before: bool = False
    drop_after: bool = False

    def matches(self, service: str, method: str, path: str) -> bool:
        """True when this request is meant and the fault is not used up."""
        return (
            self.left != 0
            and self.service in {"", service}
            and self.method in {"", method}
            and self.path.search(path) is not None
        )

    def before(self) -> None:
        """Runs before the request is looked at.

        Raises:
            ApiError: the answer in place of the real one.
            ConnectionDropped: there is no answer.
        """
        time.sleep(self.delay_seconds)
        if self.drop_before:
            raise ConnectionDropped
        if self.error is not None:
            raise self.error

    def after(self) -> None:
        """Runs when the real answer is ready."""
        if self.drop_after:
            raise ConnectionDropped


class Faults:
    """The faults of one cloud. Thread-safe.

    `times` is how often a fault happens, None for always; `path` is a regular
    expression searched in the URL's path, without the query, for example
    `r"/servers$"`; an empty `method` or `service` means any.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._requests: list[RequestFault] = []
        self._states: dict[str, int | None] = {}

    def fail(
        self,
        method: str,
        path: str,
        *,
        status: int = 500,
        body: Any = None,
        headers: dict[str, str] | None = None,
        times: int | None = 1,
        service: str = "",
    ) -> None:
        """Answer with `status`; nothing is done. The default body is the service's own."""
        error = ApiError(status, "Injected fault.", headers=headers, body=body)
        self._add(RequestFault(service, method, re.compile(path), times, error=error))

    def delay(
        self, method: str, path: str, *, seconds: float, times: int | None = 1, service: str = ""
    ) -> None:
        """Answer only after `seconds`."""
        self._add(RequestFault(service, method, re.compile(path), times, delay_seconds=seconds))

    def drop(self, method: str, path: str, *, times: int | None = 1, service: str = "") -> None:
        """Close the connection; nothing is done."""
        self._add(RequestFault(service, method, re.compile(path), times, drop_before=True))

    def lose_response(
        self, method: str, path: str, *, times: int | None = 1, service: str = ""
    ) -> None:
        """Do what is asked, then close the connection without an answer."""
        self._add(RequestFault(service, method, re.compile(path), times, drop_after=True))

    def stick(self, state: str, *, times: int | None = 1) -> None:
        """Leave what next enters `state` in it.

        States: volumes' `creating`, `attaching`, `detaching`, `deleting`;
        servers' `BUILD`, `deleting server`, `stopping`.
        """
        self._set(f"stick {state}", times)

    def volume_error(self, *, times: int | None = 1) -> None:
        """Let a created volume go to `error`, as when no backend has the space."""
        self._set("volume error", times)

    def no_valid_host(self, *, times: int | None = 1) -> None:
        """Let a created server go to ERROR with `No valid host was found.`"""
        self._set("no valid host", times)

    def build_error(self, *, times: int | None = 1) -> None:
        """Let a created server go to ERROR with a fault of the compute host."""
        self._set("build error", times)

    def no_boot(self, *, times: int | None = 1) -> None:
        """Let a server become ACTIVE whose guest never acts on its user-data."""
        self._set("no boot", times)

    def attach_error(self, *, times: int | None = 1) -> None:
        """Let an attachment fail at the compute host: the volume is available again."""
        self._set("attach error", times)

    def unspent(self) -> list[str]:
        """What was to happen some times, and has not as often yet, in words."""
        with self._lock:
            requests = [f"{one.method} {one.path.pattern}" for one in self._requests if one.left]
            return requests + [state for state, left in self._states.items() if left]

    def clear(self) -> None:
        """Forget all faults."""
        with self._lock:
            self._requests.clear()
            self._states.clear()

    def take(self, service: str, method: str, path: str) -> RequestFault | None:
        """The fault for this request, counted as used."""
        with self._lock:
            for fault in self._requests:
                if fault.matches(service, method, path):
                    fault.left = None if fault.left is None else fault.left - 1
                    return fault
        return None

    def happens(self, what: str) -> bool:
        """True when a state fault strikes now; counted as used."""
        with self._lock:
            left = self._states.get(what, 0)
            if left == 0:
                return False
            self._states[what] = None if left is None else left - 1
            return True

    def _add(self, fault: RequestFault) -> None:
        with self._lock:
            self._requests.append(fault)

    def _set(self, what: str, times: int | None) -> None:
        with self._lock:
            self._states[what] = times
