"""What happens later: volumes that become available, servers that become ACTIVE."""

import heapq
import itertools
import sys
import threading
import time
import traceback
from collections.abc import Callable


class Timeline:
    """Runs functions at their time, one after the other, in a thread of its own."""

    def __init__(self, lock: threading.RLock) -> None:
        self._lock = lock
        self._due: list[tuple[float, int, Callable[[], None]]] = []
        self._order = itertools.count()
        self._changed = threading.Condition()
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="sim-timeline", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def after(self, seconds: float, act: Callable[[], None]) -> None:
        """Call `act` with the cloud's lock held, `seconds` from now."""
        with self._changed:
            heapq.heappush(self._due, (time.monotonic() + seconds, next(self._order), act))
            self._changed.notify()

    def close(self) -> None:
        """Stop; what is not due yet never happens."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        if self._thread.is_alive() and self._thread is not threading.current_thread():
            self._thread.join(timeout=10)

    def _run(self) -> None:
        while True:
            act = self._next()
            if act is None:
                return
            with self._lock:
                try:
                    act()
                except Exception:  # noqa: BLE001 - one bad event must not stop the cloud
                    traceback.print_exc(file=sys.stderr)

    def _next(self) -> Callable[[], None] | None:
        with self._changed:
            while not self._closed:
                now = time.monotonic()
                if self._due and self._due[0][0] <= now:
                    return heapq.heappop(self._due)[2]
                self._changed.wait(self._due[0][0] - now if self._due else None)
        return None
