"""Jobs that only read: the root digest of a device, and a probe of its speed."""

import time
from typing import Final

import zstandard

from blockferry.errors import BlockferryError, CancelledError
from blockferry.limits import CHUNK_BYTES
from blockferry.v1 import agent_pb2
from blockferry_agent.chunk import is_zero
from blockferry_agent.layout import Piece, pieces
from blockferry_agent.manifest import RootHasher
from blockferry_agent.partitions import Table, read_table
from blockferry_agent.ports import BlockDevice, Clock
from blockferry_agent.stageclock import StageClock
from blockferry_agent.survey import STAGES, Survey, page_aligned_buffer

_PROBE_LEVEL: Final = 1
_HEAD_BYTES: Final = 64 << 10
"""The first partition table with all its entries, at any block size."""


class DigestFlow:
    """Reads [0, size) of a device once and makes its manifest root."""

    def __init__(self, device: BlockDevice, size_bytes: int, *, threads: int) -> None:
        self._size_bytes = size_bytes
        self._stages = StageClock(*STAGES)
        self._survey = Survey(device, 0, size_bytes, threads=threads, clock=self._stages)
        self._zero_bytes = 0
        self._digested_bytes = 0
        self._root = b""

    def run(self) -> None:
        """Read everything. Raises DeviceError, or what `cancel` was given."""
        hasher = RootHasher(self._size_bytes)
        for piece, digests, zero in self._survey:
            hasher.update(digests)
            if zero:
                self._zero_bytes += piece.length_bytes
            self._digested_bytes = piece.end_bytes
        self._root = hasher.digest()

    def cancel(self, reason: CancelledError) -> None:
        """Stop reading."""
        self._survey.fail(reason)

    def report(self, job: agent_pb2.Job) -> None:
        """Fill in progress and result."""
        done, zero = self._digested_bytes, self._zero_bytes
        progress = job.progress
        progress.size_bytes = self._size_bytes
        progress.committed_bytes = progress.verified_bytes = done
        progress.zero_bytes = min(zero, done)
        progress.data_bytes = done - progress.zero_bytes
        job.root_digest = self._root
        self._stages.report(job)


class ProbeFlow:
    """Reads chunks in order for a while; changes nothing.

    One thread and no holes: what it measures is the storage's sequential speed.
    """

    def __init__(self, device: BlockDevice, seconds: float, clock: Clock) -> None:
        self._device = device
        self._seconds = seconds
        self._clock = clock
        self._reason: BlockferryError | None = None
        self._read_bytes = 0
        self._zero_bytes = 0
        self._compressed_bytes = 0
        self._read_seconds = 0.0
        self._table = Table(agent_pb2.PARTITION_TABLE_UNSPECIFIED)

    def run(self) -> None:
        """Measure. Raises DeviceError, or what `cancel` was given."""
        compressor = zstandard.ZstdCompressor(level=_PROBE_LEVEL)
        buffer = page_aligned_buffer()
        head = buffer[: min(_HEAD_BYTES, self._device.size_bytes)]
        if head:
            self._device.read_into(0, head)
        self._table = read_table(bytes(head))
        until = self._clock.monotonic() + self._seconds
        for piece in pieces(self._device, 0, self._device.size_bytes):
            if self._reason is not None:
                raise self._reason
            if self._clock.monotonic() >= until:
                return
            self._measure(piece, buffer, compressor)

    def _measure(
        self, piece: Piece, buffer: memoryview, compressor: zstandard.ZstdCompressor
    ) -> None:
        if piece.hole:
            return
        view = buffer[: piece.length_bytes]
        started = time.perf_counter()
        self._device.read_into(piece.offset_bytes, view)
        self._read_seconds += time.perf_counter() - started
        self._read_bytes += len(view)
        if is_zero(view):
            self._zero_bytes += len(view)
        else:
            self._compressed_bytes += min(len(compressor.compress(view)), len(view))

    def cancel(self, reason: CancelledError) -> None:
        """Stop at the next chunk."""
        self._reason = reason

    def report(self, job: agent_pb2.Job) -> None:
        """Fill in what was measured."""
        job.progress.size_bytes = self._device.size_bytes
        job.progress.verified_bytes = self._read_bytes
        result, data = job.probe_result, self._read_bytes - self._zero_bytes
        result.partition_table = self._table.kind
        result.partition_alignment_bytes = self._table.alignment_bytes
        if not self._read_bytes:
            return
        speed = self._read_bytes / max(self._read_seconds, 1e-6)
        result.read_bytes_per_second = int(speed)
        result.zero_ratio = self._zero_bytes / self._read_bytes
        result.compressed_ratio = self._compressed_bytes / data if data else 1 / CHUNK_BYTES
