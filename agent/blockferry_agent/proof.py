"""The proof: the destination medium, read again and compared chunk by chunk.

It starts when the last byte is committed, not behind the commit point: what was
changed behind the sink's back during the copy is then found as well.
"""

from typing import Final

from blockferry.errors import IntegrityError
from blockferry.limits import CHUNK_BYTES, DIGEST_BYTES
from blockferry_agent.layout import Piece
from blockferry_agent.manifest import Manifest, RootHasher
from blockferry_agent.ports import BlockDevice
from blockferry_agent.stageclock import StageClock
from blockferry_agent.survey import Survey

_RANGES_NAMED: Final = 16
"""Mismatching ranges that an error names; the rest is counted."""


class Proof:
    """One reading of [0, size) of a device against a manifest."""

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
        self._survey = Survey(device, 0, size_bytes, threads=threads, clock=clock)
        self._differing: list[tuple[int, int]] = []
        self._differing_bytes = 0
        self.verified_bytes = 0
        """Read back and found equal so far."""

    def run(self) -> bytes:
        """Read everything; return the root (32 bytes) of what the medium holds.

        Raises:
            IntegrityError: READBACK_MISMATCH, with the differing byte ranges.
            DeviceError: a read failed.
        """
        hasher = RootHasher(self._size_bytes)
        for piece, digests, _ in self._survey:
            hasher.update(digests)
            if digests == self._expected(piece):
                self.verified_bytes += piece.length_bytes
            else:
                self._compare(piece, digests)
        if self._differing:
            raise self._mismatch()
        return hasher.digest()

    def fail(self, error: BaseException) -> None:
        """Stop from another thread; `run` raises `error`."""
        self._survey.fail(error)

    def _expected(self, piece: Piece) -> bytes:
        first = piece.offset_bytes // CHUNK_BYTES
        end = -(-piece.end_bytes // CHUNK_BYTES)
        return b"".join(digests for _, digests in self._manifest.runs(first, end))

    def _compare(self, piece: Piece, digests: bytes) -> None:
        expected = self._expected(piece)
        for at in range(0, len(digests), DIGEST_BYTES):
            start = piece.offset_bytes + at // DIGEST_BYTES * CHUNK_BYTES
            end = min(start + CHUNK_BYTES, piece.end_bytes)
            if digests[at : at + DIGEST_BYTES] == expected[at : at + DIGEST_BYTES]:
                self.verified_bytes += end - start
            else:
                self._note(start, end)

    def _note(self, start_bytes: int, end_bytes: int) -> None:
        self._differing_bytes += end_bytes - start_bytes
        if self._differing and self._differing[-1][1] == start_bytes:
            self._differing[-1] = (self._differing[-1][0], end_bytes)
        elif len(self._differing) < _RANGES_NAMED:
            self._differing.append((start_bytes, end_bytes))

    def _mismatch(self) -> IntegrityError:
        ranges = " ".join(f"[{start},{end})" for start, end in self._differing)
        return IntegrityError(
            "READBACK_MISMATCH",
            f"{self._device.path} does not hold what was written to it: {self._differing_bytes} "
            f"bytes differ, in {ranges}. Somebody else wrote to it or the storage is faulty; "
            "do not use it, copy again to another volume.",
            path=self._device.path,
            ranges=ranges,
            differing_bytes=self._differing_bytes,
        )
