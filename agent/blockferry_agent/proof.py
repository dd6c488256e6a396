"""The proof: the destination medium, read again and compared chunk by chunk.

Rules:
* It is one process's reading of the whole medium, in ascending order. Nothing
  that an earlier process has read is taken on trust: not after a power cut, not
  after a repair. What that costs is reading; see `following` for when it is done.
* What differs is named. Little may be sent again (see `excerpt`), which nobody
  believes either before the whole medium was read anew.
"""

from __future__ import annotations

import time
from typing import Final

from blockferry.errors import IntegrityError
from blockferry.limits import CHUNK_BYTES, DIGEST_BYTES, GIB, MIB, REPAIR_RANGES_MAX
from blockferry_agent.chunk import chunk_count
from blockferry_agent.layout import Piece, pieces
from blockferry_agent.manifest import Manifest, RootHasher
from blockferry_agent.ports import BlockDevice
from blockferry_agent.stageclock import StageClock
from blockferry_agent.survey import Survey, page_aligned_buffer, read_digests

_RANGES_NAMED: Final = 16
"""Mismatching ranges that an error names; the rest is counted."""

_REPAIR_SHARE: Final = 16
_REPAIR_LEAST_BYTES: Final = 16 * MIB
_REPAIR_MOST_BYTES: Final = 64 * GIB


class Differences:
    """Ranges of a medium that are not what was written; not thread-safe."""

    def __init__(self, path: str, size_bytes: int) -> None:
        self._path = path
        self._most_bytes = min(
            max(size_bytes // _REPAIR_SHARE, _REPAIR_LEAST_BYTES), _REPAIR_MOST_BYTES
        )
        self._ranges: list[tuple[int, int]] = []
        self._bytes = 0

    def add(self, start_bytes: int, end_bytes: int) -> None:
        """Note one more, after all that are noted.

        Raises:
            IntegrityError: READBACK_MISMATCH, there are too many for a repair.
        """
        self._bytes += end_bytes - start_bytes
        if self._ranges and self._ranges[-1][1] == start_bytes:
            self._ranges[-1] = (self._ranges[-1][0], end_bytes)
        else:
            self._ranges.append((start_bytes, end_bytes))
        if self._bytes > self._most_bytes or len(self._ranges) > REPAIR_RANGES_MAX:
            raise self.error()

    @property
    def repairable(self) -> tuple[tuple[int, int], ...]:
        """All of them, [start, end) in bytes; empty when they are too many."""
        beyond = self._bytes > self._most_bytes or len(self._ranges) > REPAIR_RANGES_MAX
        return () if beyond else tuple(self._ranges)

    def error(self) -> IntegrityError:
        """READBACK_MISMATCH, which names the first."""
        ranges = " ".join(f"[{start},{end})" for start, end in self._ranges[:_RANGES_NAMED])
        much = f"{self._bytes} bytes" if self.repairable else f"at least {self._bytes} bytes"
        return IntegrityError(
            "READBACK_MISMATCH",
            f"{self._path} does not hold what was written to it: {much} differ, in {ranges}. "
            "Somebody else wrote to it or the storage is faulty; do not use it, copy again to "
            "another volume.",
            path=self._path,
            ranges=ranges,
            differing_bytes=self._bytes,
        )


class Proof:
    """One reading of [0, size) of a device against a manifest.

    `read` and `finish` are called from one thread at a time, the rest from any.
    """

    def __init__(
        self,
        device: BlockDevice,
        manifest: Manifest,
        size_bytes: int,
        *,
        threads: int,
        clock: StageClock,
    ) -> None:
        self._device = device
        self._manifest = manifest
        self._size_bytes = size_bytes
        self._threads = threads
        self._clock = clock
        self._buffer = page_aligned_buffer()
        self._hasher = RootHasher(size_bytes)
        self._differences = Differences(device.path, size_bytes)
        self._survey: Survey | None = None
        self._stopped: BaseException | None = None
        self.offset_bytes = 0
        """[0, offset) is read."""
        self.verified_bytes = 0
        """Read back and found equal so far."""

    @property
    def differing(self) -> tuple[tuple[int, int], ...]:
        """All that differs, once all is read; empty before, and where it is beyond repair."""
        return self._differences.repairable if self.offset_bytes == self._size_bytes else ()

    def read(self, end_bytes: int, most_bytes: int) -> None:
        """Read on towards `end_bytes`, in this thread.

        Args:
            end_bytes: On the chunk grid or the size; the manifest reaches there.
            most_bytes: Of actual reading, at least 1; holes cost nothing.

        Raises:
            IntegrityError: READBACK_MISMATCH, more differs than can be repaired.
            DeviceError: a read failed.
        """
        left = most_bytes
        for piece in pieces(self._device, self.offset_bytes, end_bytes):
            self._take(piece, read_digests(self._device, piece, self._buffer, self._clock)[0])
            left -= 0 if piece.hole else piece.length_bytes
            if left <= 0:
                return

    def sample(self, end_bytes: int) -> float:
        """Seconds that reading [0, end) takes, in this thread; nothing counts as read."""
        started = time.perf_counter()
        for piece in pieces(self._device, 0, end_bytes):
            read_digests(self._device, piece, self._buffer, self._clock)
        return time.perf_counter() - started

    def finish(self) -> bytes:
        """Read what is left; return the root (32 bytes) of what the medium holds.

        Raises:
            IntegrityError: READBACK_MISMATCH, with the differing byte ranges.
            DeviceError: a read failed.
            BaseException: what `fail` was called with.
        """
        survey = Survey(
            self._device,
            self.offset_bytes,
            self._size_bytes,
            threads=self._threads,
            clock=self._clock,
        )
        self._survey = survey
        # Failed between the last reading and here.
        if self._stopped is not None:
            survey.fail(self._stopped)
        for piece, digests, _ in survey:
            self._take(piece, digests)
        if self.differing:
            raise self._differences.error()
        return self._hasher.digest()

    def fail(self, error: BaseException) -> None:
        """Stop from another thread; `finish` raises `error`."""
        self._stopped = self._stopped or error
        if self._survey is not None:
            self._survey.fail(error)

    def _take(self, piece: Piece, digests: bytes) -> None:
        self._hasher.update(digests)
        first = piece.offset_bytes // CHUNK_BYTES
        runs = self._manifest.runs(first, chunk_count(piece.end_bytes))
        expected = b"".join(run for _, run in runs)
        if digests == expected:
            self.verified_bytes += piece.length_bytes
        else:
            self._compare(piece, digests, expected)
        self.offset_bytes = piece.end_bytes

    def _compare(self, piece: Piece, digests: bytes, expected: bytes) -> None:
        for at in range(0, len(digests), DIGEST_BYTES):
            start = piece.offset_bytes + at // DIGEST_BYTES * CHUNK_BYTES
            end = min(start + CHUNK_BYTES, piece.end_bytes)
            if digests[at : at + DIGEST_BYTES] == expected[at : at + DIGEST_BYTES]:
                self.verified_bytes += end - start
            else:
                self._differences.add(start, end)
