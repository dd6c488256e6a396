"""The write probe: how fast a new volume takes what a copy will write.

    writer thread: random chunks -> device, in ascending order from 0 on
    flusher thread: flush -> safe

Rules:
* It writes as the sink does: the same writer, chunks and commit sizes, flushed beside
  the writing. Only what a flush has made durable counts, and of that the later half:
  the caches on the way are full by then.
* It stays within the source's size, an eighth of it, and BYTES_MAX. What is ahead of
  the last flush grows with what was safe before, so that a slow device is not handed
  more than it can take in the time.
* What it leaves is garbage. That is no harm to a copy, which never assumes zeros;
  whether the volume may be written at all, TransferFiles knows: see `assignments`.
"""

import os
import threading
from typing import Final

from blockferry.errors import CancelledError
from blockferry.limits import CHUNK_BYTES, MIB, WINDOW_BYTES
from blockferry.v1 import agent_pb2
from blockferry_agent.committer import COMMIT_BYTES
from blockferry_agent.pipeline import Closed, StageGroup
from blockferry_agent.ports import BlockDevice, Clock
from blockferry_agent.stageclock import StageClock, Stopwatch
from blockferry_agent.throughput import Mark, rate_of
from blockferry_agent.writer import DeviceWriter

SECONDS_MAX: Final = 10.0
BYTES_MAX: Final = 512 * MIB
_SHARE: Final = 8
"""Of a small volume, more would cost more than it tells."""
_STEPS_AHEAD: Final = WINDOW_BYTES // COMMIT_BYTES
_SHIFT_BYTES: Final = 4093
"""Prime: no two chunks of a probe hold an equal block for storage to deduplicate."""


class WriteProbeFlow:
    """One write probe. `run` in one thread, the rest in any."""

    def __init__(self, device: BlockDevice, size_bytes: int, seconds: float, clock: Clock) -> None:
        """Prepare.

        Args:
            device: Opened for writing, at least `size_bytes` large.
            size_bytes: Of the source.
            seconds: How long to write, in (0, SECONDS_MAX].
            clock: What the time and the rate are taken from.
        """
        self._device = device
        self._bytes = min(size_bytes // _SHARE, BYTES_MAX) // CHUNK_BYTES * CHUNK_BYTES
        self._seconds = seconds
        self._clock = clock
        self._stages = StageClock("write", "flush")
        self._group = StageGroup("write-probe")
        self._group.closes(self)
        self._changed = threading.Condition()
        self._written_bytes = 0
        self._safe_bytes = 0
        self._complete = False
        self._closed = False
        self._marks: list[Mark] = []

    def run(self) -> None:
        """Measure. Raises DeviceError, CapacityError, or what `cancel` was given."""
        self._marks.append(Mark(self._clock.monotonic(), 0))
        self._group.spawn("writer", self._write)
        self._group.spawn("flusher", self._flush)
        self._group.join()

    def _write(self) -> None:
        writer = DeviceWriter(self._device)
        noise = memoryview(os.urandom(2 * CHUNK_BYTES))
        until = self._clock.monotonic() + self._seconds
        for offset in range(0, self._bytes, CHUNK_BYTES):
            self._await_turn()
            if self._clock.monotonic() >= until:
                break
            shift = offset // CHUNK_BYTES * _SHIFT_BYTES % CHUNK_BYTES
            watch = Stopwatch()
            writer.write(offset, noise[shift : shift + CHUNK_BYTES])
            self._stages["write"].add(CHUNK_BYTES, watch.lap())
            with self._changed:
                self._written_bytes += CHUNK_BYTES
                self._changed.notify_all()
        with self._changed:
            self._complete = True
            self._changed.notify_all()

    def _await_turn(self) -> None:
        """Wait until another chunk may be ahead of what is safe. Raises Closed."""
        with self._changed:
            while self._written_bytes - self._safe_bytes >= _STEPS_AHEAD * self._step_bytes:
                self._raise_if_closed()
                self._changed.wait()
            self._raise_if_closed()

    def _flush(self) -> None:
        while (target := self._due()) is not None:
            watch = Stopwatch()
            self._device.flush()
            self._stages["flush"].add(target - self._safe_bytes, watch.lap())
            self._marks.append(Mark(self._clock.monotonic(), target))
            with self._changed:
                self._safe_bytes = target
                self._changed.notify_all()

    def _due(self) -> int | None:
        """Wait for enough to flush; None when all is safe. Raises Closed."""
        with self._changed:
            while not self._complete and (
                self._written_bytes - self._safe_bytes < self._step_bytes
            ):
                self._raise_if_closed()
                self._changed.wait()
            self._raise_if_closed()
            return self._written_bytes if self._written_bytes > self._safe_bytes else None

    @property
    def _step_bytes(self) -> int:
        return min(max(self._safe_bytes // 2, CHUNK_BYTES), COMMIT_BYTES)

    def _raise_if_closed(self) -> None:
        if self._closed:
            raise Closed

    def close(self, error: BaseException | None = None) -> None:
        """Wake both threads for the group's first error."""
        del error
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def cancel(self, reason: CancelledError) -> None:
        """Stop at the next chunk or flush."""
        self._group.fail(reason)

    def report(self, job: agent_pb2.Job) -> None:
        """Fill in what was measured; no byte of it is a commit point."""
        job.progress.size_bytes = self._bytes
        job.probe_result.write_bytes_per_second = rate_of([*self._marks])
        self._stages.report(job)
