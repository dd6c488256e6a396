"""How far a source may run ahead of the sink's commit point.

Rules:
* Payload bytes beyond the commit point never exceed the window. Zero runs have
  no payload, so they are bounded by their number.
* What is counted as done lies below the commit point: finished work, never
  issued work.
"""

import threading
from collections import deque
from typing import Final

from blockferry_agent.pipeline import Closed
from blockferry_agent.ports import Clock
from blockferry_agent.position import Position

IN_FLIGHT_FRAMES_MAX: Final = 1024
"""Frames beyond the commit point at most: a quarter of what a sink would hold."""


class SendWindow:
    """Frames in flight of one attempt. Thread-safe; one thread reserves."""

    def __init__(self, window_bytes: int, start: Position, clock: Clock) -> None:
        self._window_bytes = window_bytes
        self._clock = clock
        self._changed = threading.Condition()
        self._committed = start
        self._flight: deque[Position] = deque()
        self._sent = start
        self._paused = False
        self._closed = False
        self._heard_bytes = start.offset_bytes
        self._moved_at = clock.monotonic()

    @property
    def committed(self) -> Position:
        """What the sink has confirmed, in whole frames."""
        return self._committed

    @property
    def heard_bytes(self) -> int:
        """The last commit point heard; may lie inside a zero run."""
        return self._heard_bytes

    def reserve(self, data_bytes: int, zero_bytes: int) -> None:
        """Wait until the next frame may be sent, and count it as in flight.

        Exactly one of the arguments is above 0. Raises Closed.
        """
        with self._changed:
            while not self._closed and (self._paused or not self._has_room(data_bytes)):
                self._changed.wait()
            if self._closed:
                raise Closed
            if not self._flight:
                self._moved_at = self._clock.monotonic()
            self._sent = self._sent.plus(data_bytes, zero_bytes)
            self._flight.append(self._sent)

    def _has_room(self, data_bytes: int) -> bool:
        ahead = self._sent.data_bytes - self._committed.data_bytes
        # A window smaller than a frame must not stop the transfer for good.
        fits = ahead + data_bytes <= self._window_bytes or ahead == 0
        return fits and len(self._flight) < IN_FLIGHT_FRAMES_MAX

    def advance(self, committed_bytes: int) -> None:
        """Take a commit point that the sink told; what it passed is out of flight."""
        with self._changed:
            if committed_bytes <= self._heard_bytes:
                return
            self._heard_bytes = committed_bytes
            self._moved_at = self._clock.monotonic()
            while self._flight and self._flight[0].offset_bytes <= committed_bytes:
                self._committed = self._flight.popleft()
            self._changed.notify_all()

    def set_paused(self, paused: bool) -> None:
        """Hold or release `reserve`; what is in flight goes on."""
        with self._changed:
            self._paused = paused
            self._moved_at = self._clock.monotonic()
            self._changed.notify_all()

    def silent_seconds(self) -> float:
        """How long the sink has owed a commit point; 0.0 when it owes none."""
        with self._changed:
            return self._clock.monotonic() - self._moved_at if self._flight else 0.0

    def close(self, error: BaseException | None = None) -> None:
        """Wake and refuse `reserve`."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
