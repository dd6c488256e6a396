"""Reads the medium back while the copy still runs, so that the proof ends soon after it.

Rules:
* Only what lies below the commit point is read: it is flushed, and final.
* As late as will do. What is read late finds more: whatever strays onto a part
  that was read already is not seen any more. So reading begins when what is left
  to read would outlast what is left to copy by a tenth of the copy's time.
* Never while a flush is under way. Where the medium is what the copy waits for,
  flushes follow each other, and the reading is left for afterwards.
"""

import time
from typing import Final

from blockferry.limits import MIB
from blockferry_agent.pipeline import Closed
from blockferry_agent.ports import Clock
from blockferry_agent.proof import Proof
from blockferry_agent.standing import Standing

_STRIDE_BYTES: Final = 4 * MIB
"""Read in one go: 40 ms at 100 MB/s, which is what a flush may have to wait."""
_SAMPLE_BYTES: Final = 8 * MIB
_LATE_SHARE: Final = 0.1
"""Of the copy's time: how long the proof may go on after it."""
_LOOK_SECONDS: Final = 0.2


def is_due(
    *,
    size_bytes: int,
    copied_bytes: int,
    committed_bytes: int,
    proven_bytes: int,
    elapsed_seconds: float,
    read_bytes_per_second: float,
) -> bool:
    """Whether the proof must read on now to end soon after the copy.

    Args:
        size_bytes: Of the transfer.
        copied_bytes: Committed in `elapsed_seconds`; above 0.
        committed_bytes: Commit point.
        proven_bytes: Read so far.
        elapsed_seconds: Since this run began to copy.
        read_bytes_per_second: How fast the medium is read, above 0.
    """
    copying = (size_bytes - committed_bytes) * elapsed_seconds / copied_bytes
    reading = (size_bytes - proven_bytes) / read_bytes_per_second
    return reading > copying + _LATE_SHARE * (elapsed_seconds + copying)


class Follower:
    """One thread's work; see `run`."""

    def __init__(self, proof: Proof, standing: Standing, size_bytes: int, clock: Clock) -> None:
        self._proof = proof
        self._standing = standing
        self._size_bytes = size_bytes
        self._clock = clock
        self._start_bytes = standing.committed.offset_bytes
        self._began_at = clock.monotonic()
        self._read_bytes = 0
        self._read_seconds = 0.0

    def run(self) -> None:
        """Read behind the commit point until everything is committed.

        Raises:
            IntegrityError: READBACK_MISMATCH, more differs than can be repaired.
            DeviceError: a read failed.
            Closed: the job ended early.
        """
        while (committed := self._await_due()) is not None:
            if not self._read_bytes:
                self._read_bytes = min(committed, _SAMPLE_BYTES)
                self._read_seconds = self._proof.sample(self._read_bytes)
                continue
            before, started = self._proof.offset_bytes, time.perf_counter()
            self._proof.read(committed, _STRIDE_BYTES)
            self._read_bytes += self._proof.offset_bytes - before
            self._read_seconds += time.perf_counter() - started

    def _await_due(self) -> int | None:
        """Wait until there is something to read now; returns the commit point, None at the end."""
        standing = self._standing
        with standing.lock:
            while True:
                if standing.stopped is not None:
                    raise Closed
                if standing.root:
                    return None
                committed = standing.committed.offset_bytes
                if not standing.flushing and self._is_due(committed):
                    return committed
                standing.news.wait(_LOOK_SECONDS)

    def _is_due(self, committed_bytes: int) -> bool:
        copied = committed_bytes - self._start_bytes
        if copied < _SAMPLE_BYTES or committed_bytes <= self._proof.offset_bytes:
            return False
        return not self._read_bytes or is_due(
            size_bytes=self._size_bytes,
            copied_bytes=copied,
            committed_bytes=committed_bytes,
            proven_bytes=self._proof.offset_bytes,
            elapsed_seconds=self._clock.monotonic() - self._began_at,
            read_bytes_per_second=self._read_bytes / max(self._read_seconds, 1e-6),
        )
