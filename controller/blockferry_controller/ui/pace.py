"""How fast the bytes move and when they will have: from what was told, no clock.

Rates are those of the last `WINDOW_SECONDS`: long enough to be calm, short
enough that a stall shows. The time left follows from the same rate.
"""

from collections import deque
from datetime import datetime
from typing import Final

from msgspec import Struct

from blockferry_controller.events import Progressed

WINDOW_SECONDS: Final = 10.0
STALL_SECONDS: Final = 5.0
_SAMPLES_MAX: Final = 64


class Reading(Struct, frozen=True):
    """What a person wants to know at one moment.

    Attributes:
        phase: See Progress.
        done_bytes: Finished in this phase, of `size_bytes`.
        percent: In [0, 100].
        bytes_per_second: Logical: of the volume, zeros included.
        wire_bytes_per_second: After compression.
        ratio: Payload before compression by after it; None while nothing was sent.
        eta_seconds: Until the phase ends; None while nothing moves.
        stalled: Nothing has moved for STALL_SECONDS, though something is left.
    """

    phase: str
    done_bytes: int
    size_bytes: int
    percent: float
    bytes_per_second: float
    wire_bytes_per_second: float
    ratio: float | None
    eta_seconds: float | None
    stalled: bool


class _Sample(Struct, frozen=True):
    time: datetime
    done_bytes: int
    wire_bytes: int


class Pace:
    """Follows one migration. Not thread-safe."""

    def __init__(self) -> None:
        self._phase = ""
        self._samples: deque[_Sample] = deque(maxlen=_SAMPLES_MAX)

    def read(self, event: Progressed) -> Reading:
        """Take the event in and say how things stand."""
        progress = event.progress
        done = progress.verified_bytes if progress.phase == "proof" else progress.committed_bytes
        self._take(progress.phase, _Sample(event.time, done, progress.wire_bytes))
        seconds = _apart(self._samples[0], self._samples[-1])
        rate, wire_rate = self._rates(seconds)
        left = max(0, progress.size_bytes - done)
        return Reading(
            phase=progress.phase,
            done_bytes=done,
            size_bytes=progress.size_bytes,
            percent=_percent(done, progress.size_bytes),
            bytes_per_second=rate,
            wire_bytes_per_second=wire_rate,
            ratio=progress.sent_bytes / progress.wire_bytes if progress.wire_bytes else None,
            eta_seconds=left / rate if rate > 0 else None if left else 0.0,
            stalled=left > 0 and rate == 0 and seconds >= STALL_SECONDS,
        )

    def _take(self, phase: str, sample: _Sample) -> None:
        backwards = self._samples and sample.wire_bytes < self._samples[-1].wire_bytes
        if phase != self._phase or backwards:
            # A new phase or a new run counts from its own beginning.
            self._phase = phase
            self._samples.clear()
        self._samples.append(sample)
        while len(self._samples) > 2 and _apart(self._samples[1], sample) >= WINDOW_SECONDS:
            self._samples.popleft()

    def _rates(self, seconds: float) -> tuple[float, float]:
        first, last = self._samples[0], self._samples[-1]
        if seconds <= 0:
            return 0.0, 0.0
        return (
            max(0, last.done_bytes - first.done_bytes) / seconds,
            max(0, last.wire_bytes - first.wire_bytes) / seconds,
        )


def _apart(first: _Sample, last: _Sample) -> float:
    return (last.time - first.time).total_seconds()


def _percent(done: int, size: int) -> float:
    """Never 100 before the last byte is done; an empty volume is done at once."""
    if done >= size:
        return 100.0
    return min(99.9, 100.0 * done / size)
