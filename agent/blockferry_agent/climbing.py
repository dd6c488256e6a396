"""Finds the best of a row of settings by trying its neighbours. Pure: it is told the time.

Rules:
* What counts is how fast the work gets done. Who waits for whom only says which
  way to look first: on a machine whose CPU is the limit, fewer bytes on the wire
  may be cheaper than less compression, or may not.
* It begins at the lowest place, which no compression holds up: so a slow wire shows as soon as
  the buffers on the way are full, which takes longest where frames are small. If there is one, the
  way begins anew at a place that is most often good then.
* A neighbour is tried for one window and kept only if it is clearly faster than
  the best of the last windows. Where nothing queues for the wire, the lowest is tried
  before the neighbour: the way down to it need not get better step by step. Nor need the way
  up: once the lowest is left, the place for a slow wire is tried first.
* Where the first try was better, it may be for what it was compared with: memory is taken for
  the first time meanwhile. So the way back is not closed.
* When all tries from one place were in vain, the pause to the next ones doubles.
* Where a jump made work much faster, what was jumped over is taken for no better than where it
  began, which was hopeless then.
* What was hopeless is let be for longer than the rest, and each time twice as long: a try
  of it costs as much as many others. It is tried sooner where work is slower now than it was there.
"""

from collections import deque
from dataclasses import dataclass
from typing import Final

from blockferry.limits import MIB

_WINDOW_BYTES: Final = 24 * MIB
_WINDOW_SECONDS: Final = 0.1
_SETTLE_BYTES: Final = 12 * MIB
"""On their way with the former setting when another is chosen."""
_CLEARLY: Final = 1.05
_GLANCE_BYTES: Final = 8 * MIB
_HOPELESS: Final = 0.8
_BUFFERED_BYTES: Final = 8 * MIB
"""Taken within 15 ms by what lies between two agents, however slow the wire is."""
_GLANCE_SECONDS: Final = 0.05
_WIRE_RATE: Final = 150 * MIB
"""In bytes a second: what gets through less waits for a wire. Taking memory is faster, even where
a virtual machine's host lends it only then (188 MiB/s were seen)."""
_DRAIN_BYTES: Final = 3 * _SETTLE_BYTES
"""Until a slow wire has carried what was on its way without compression."""
_PAUSE_WINDOWS: Final = 2
_PAUSE_MOST_WINDOWS: Final = 48
_SHELF_WINDOWS: Final = 48
_SHELF_MOST_WINDOWS: Final = 384


@dataclass(slots=True)
class _Shelved:
    """A place that was hopeless when it was tried.

    Attributes:
        rate: Bytes a second that were seen there.
        pause: Windows that it is let be for.
        left: Of them, those still to come.
    """

    rate: float
    pause: int
    left: int


class Climb:
    """Places [0, count) in a row; not thread-safe.

    Args:
        count: Places.
        slow_start: Where the way begins if the wire is found to be slow.
    """

    def __init__(self, count: int, slow_start: int) -> None:
        self._count = count
        self._slow_start = slow_start
        self.place = 0
        """The setting to work with now."""
        self._home: int | None = None
        self._is_new = True
        """Whether nothing has been judged yet."""
        self._warm = False
        """Whether a try has come to its end before."""
        self._rates: deque[float] = deque(maxlen=3)
        self._vain: set[int] = set()
        self._shelf: dict[int, _Shelved] = {}
        self._pause = _PAUSE_WINDOWS
        self._left = 1
        self._settling = _BUFFERED_BYTES
        self._bytes = 0
        self._queued = 0
        self._since = 0.0

    def observe(self, amount_bytes: int, now: float, *, queued: bool) -> None:
        """Learn that a piece of work was done.

        Args:
            amount_bytes: Of work, before compression.
            now: Seconds on a monotonic clock.
            queued: Whether it had to queue for the wire.
        """
        if self._settling > 0:
            self._settling -= amount_bytes
            self._since = now
            return
        self._bytes += amount_bytes
        self._queued += 1 if queued else -1
        seconds = now - self._since
        whole = self._bytes >= _WINDOW_BYTES and seconds >= _WINDOW_SECONDS
        if whole or self._is_too_slow(seconds):
            self._judge(self._bytes / seconds)
            self._bytes, self._since = 0, now

    def _is_too_slow(self, seconds: float) -> bool:
        """Whether a look need not go on: the wire is slow, or a try is hopeless."""
        if self._is_new:
            return seconds >= _GLANCE_SECONDS and self._bytes / seconds < _WIRE_RATE
        if self._home is None or self._bytes < _GLANCE_BYTES or seconds <= 0:
            return False
        return self._bytes / seconds < max(self._rates) * _HOPELESS

    def _judge(self, rate: float) -> None:
        was_new, self._is_new = self._is_new, False
        if was_new and rate < _WIRE_RATE:
            self._begin_anew(rate)
        elif self._home is not None:
            self._end_try(rate)
        else:
            self._look(rate)

    def _begin_anew(self, rate: float) -> None:
        """The wire is slow: go where work is to be expected to be fastest."""
        self._shelve(self.place, rate)
        self._left = 1
        self._go(self._slow_start)
        self._settling = _DRAIN_BYTES

    def _look(self, rate: float) -> None:
        """Take what was seen at home, and see whether it is time for a try."""
        self._rates.append(rate)
        self._left -= 1
        for shelved in self._shelf.values():
            shelved.left -= 1
        if self._left <= 0:
            target = self._next_try()
            self._queued = 0
            if target is None:
                self._give_up()
            else:
                self._home = self.place
                self._go(target)

    def _next_try(self) -> int | None:
        """The place that promises most of those not tried from here; None: there is none."""
        below, above = self.place - 1, self.place + 1
        likely = [above, below] if self._queued > 0 else [0, below, above]
        if 0 < self.place < self._slow_start:
            likely.insert(0, self._slow_start)
        left = (one for one in likely if 0 <= one < self._count)
        return next((one for one in left if self._is_worth_a_try(one)), None)

    def _is_worth_a_try(self, place: int) -> bool:
        if place == self.place or place in self._vain:
            return False
        shelved = self._shelf.get(place)
        return shelved is None or shelved.left <= 0 or shelved.rate > max(self._rates)

    def _end_try(self, rate: float) -> None:
        home, self._home = self._home, None
        warm, self._warm = self._warm, True
        assert home is not None
        before = max(self._rates)
        if rate > before * _CLEARLY:
            self._vain = {home} if warm else set()
            if before < rate * _HOPELESS:
                for place in range(self.place + 1, home + 1):
                    self._shelve(place, before)
            self._pause = _PAUSE_WINDOWS
            # The way was right: go on after one more look.
            self._left = 1
            self._rates.clear()
            self._rates.append(rate)
        else:
            self._vain.add(self.place)
            if rate < before * _HOPELESS:
                self._shelve(self.place, rate)
            # Frames of the try say nothing of who waits for whom at home.
            self._queued = 0
            self._left = self._pause
            self._go(home)

    def _shelve(self, place: int, rate: float) -> None:
        before = self._shelf.get(place)
        pause = min(before.pause * 2, _SHELF_MOST_WINDOWS) if before else _SHELF_WINDOWS
        self._shelf[place] = _Shelved(rate, pause, pause)

    def _give_up(self) -> None:
        """Nothing is better now; all is tried anew later."""
        self._vain = set()
        self._pause = min(self._pause * 2, _PAUSE_MOST_WINDOWS)
        self._left = self._pause

    def _go(self, place: int) -> None:
        self.place = place
        self._settling = _SETTLE_BYTES
