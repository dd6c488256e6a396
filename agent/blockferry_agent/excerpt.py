"""Parts of a device as a device of their own: what a repair sends and writes.

A repair is a transfer of the excerpt: the same jobs, frames and commit points,
with the ranges laid end to end. Holes are not told, so every byte is looked at.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Final

from blockferry.errors import IntegrityError, PreconditionError, UsageError
from blockferry.limits import CHUNK_BYTES, DIGEST_BYTES, REPAIR_RANGES_MAX
from blockferry_agent.chunk import chunk_count, digest, is_whole_chunks, zero_digest
from blockferry_agent.manifest import Manifest
from blockferry_agent.ports import BlockDevice, Extent, ZeroMethod

Ranges = Sequence[tuple[int, int]]
"""[start, end) in bytes; see ByteRange in agent.proto."""


class Excerpt:
    """The `ranges` of a device, one after another; implements BlockDevice."""

    def __init__(self, device: BlockDevice, ranges: Ranges, size_bytes: int) -> None:
        """Check the ranges against a transfer of `size_bytes`.

        Raises:
            UsageError: RANGES_INVALID.
        """
        _check(ranges, size_bytes)
        self._device = device
        self._ranges: Final = tuple(ranges)
        self._starts = [0, *accumulate(end - start for start, end in self._ranges)]

    @property
    def path(self) -> str:
        """Of the device."""
        return self._device.path

    @property
    def size_bytes(self) -> int:
        """All ranges together."""
        return self._starts[-1]

    @property
    def block_bytes(self) -> int:
        """Of the device."""
        return self._device.block_bytes

    @property
    def zero_methods(self) -> tuple[ZeroMethod, ...]:
        """Of the device."""
        return self._device.zero_methods

    def read_into(self, offset_bytes: int, buffer: memoryview) -> None:
        """See BlockDevice.read_into."""
        for at, start, end in self.places(offset_bytes, len(buffer)):
            self._device.read_into(at, buffer[start:end])

    def write_at(self, offset_bytes: int, data: memoryview | bytes) -> None:
        """See BlockDevice.write_at."""
        with memoryview(data) as view:
            for at, start, end in self.places(offset_bytes, len(view)):
                self._device.write_at(at, view[start:end])

    def zero_at(self, offset_bytes: int, length_bytes: int, method: ZeroMethod) -> None:
        """See BlockDevice.zero_at."""
        for at, start, end in self.places(offset_bytes, length_bytes):
            self._device.zero_at(at, end - start, method)

    def extents(self, start_bytes: int, end_bytes: int) -> Iterator[Extent]:
        """See BlockDevice.extents: no holes, whatever the storage promises."""
        self._check_within(start_bytes, end_bytes)
        return iter([Extent(start_bytes, end_bytes, False)] if start_bytes < end_bytes else [])

    def start_writeback(self, offset_bytes: int, length_bytes: int) -> None:
        """See BlockDevice.start_writeback."""
        for at, start, end in self.places(offset_bytes, length_bytes):
            self._device.start_writeback(at, end - start)

    def flush(self) -> None:
        """See BlockDevice.flush."""
        self._device.flush()

    def close(self) -> None:
        """See BlockDevice.close."""
        self._device.close()

    def places(self, offset_bytes: int, length_bytes: int) -> Iterator[tuple[int, int, int]]:
        """Where [offset, offset + length) of the excerpt lies.

        Yields:
            (offset on the device, start, end), the last two within the length.

        Raises:
            UsageError: OUT_OF_RANGE.
        """
        self._check_within(offset_bytes, offset_bytes + length_bytes)
        done = 0
        while done < length_bytes:
            number = bisect_right(self._starts, offset_bytes + done) - 1
            inside = offset_bytes + done - self._starts[number]
            start, end = self._ranges[number]
            step = min(end - start - inside, length_bytes - done)
            yield start + inside, done, done + step
            done += step

    def _check_within(self, start_bytes: int, end_bytes: int) -> None:
        if not 0 <= start_bytes <= end_bytes <= self.size_bytes:
            raise UsageError(
                "OUT_OF_RANGE",
                f"[{start_bytes},{end_bytes}) is not within {self.size_bytes} bytes "
                f"of {self.path}.",
                path=self.path,
            )

    def digests_in(self, manifest: Manifest) -> bytes:
        """What the manifest of the whole device says of the ranges; 32 bytes a chunk.

        Raises:
            PreconditionError: MANIFEST_INCOMPLETE.
        """
        found = b"".join(
            digests
            for start, end in self._ranges
            for _, digests in manifest.runs(start // CHUNK_BYTES, chunk_count(end))
        )
        if len(found) != chunk_count(self.size_bytes) * DIGEST_BYTES:
            raise PreconditionError(
                "MANIFEST_INCOMPLETE",
                f"What {self.path} held in the ranges to repair is not known here any more; "
                "copy again to another volume.",
                path=self.path,
            )
        return found

    def fingerprint(self) -> str:
        """The same for the same ranges: 16 hexadecimal digits."""
        return digest(repr(self._ranges).encode()).hex()[:16]


class SealedManifest(Manifest):
    """Digests that are known beforehand: what is put must be the same."""

    def __init__(self, path: Path, size_bytes: int, fd: int) -> None:
        super().__init__(path, size_bytes, fd)
        self._excerpt: Excerpt | None = None

    def seal(self, excerpt: Excerpt, digests: bytes) -> None:
        """Hold `digests`, those of all chunks of `excerpt`, against what is put from now on."""
        self.truncate(0)
        if digests:
            super().put(0, digests)
        self._excerpt = excerpt

    def put(self, first_chunk: int, digests: bytes) -> None:
        """Confirm digests.

        Raises:
            IntegrityError: SOURCE_CHANGED, with the range of the first that differs.
        """
        if self._excerpt is None:
            super().put(first_chunk, digests)
            return
        end_chunk = first_chunk + len(digests) // DIGEST_BYTES
        known = b"".join(run for _, run in self.runs(first_chunk, end_chunk))
        for at in range(0, len(digests), DIGEST_BYTES):
            if digests[at : at + DIGEST_BYTES] != known[at : at + DIGEST_BYTES]:
                raise self._changed(first_chunk + at // DIGEST_BYTES)

    def put_zeros(self, first_chunk: int, chunks: int) -> None:
        """Confirm chunks of zeros. Raises as `put`."""
        for chunk in range(first_chunk, first_chunk + chunks):
            length = min(CHUNK_BYTES, self.size_bytes - chunk * CHUNK_BYTES)
            self.put(chunk, zero_digest(length))

    def _changed(self, chunk: int) -> IntegrityError:
        assert self._excerpt is not None
        length = min(CHUNK_BYTES, self.size_bytes - chunk * CHUNK_BYTES)
        start = next(self._excerpt.places(chunk * CHUNK_BYTES, length))[0]
        return IntegrityError(
            "SOURCE_CHANGED",
            f"{self._excerpt.path}, the source, does not read in [{start},{start + length}) as it "
            "did when it was copied: it was changed or is faulty itself. Nothing there was sent "
            "again. Check the source, then copy again to another volume.",
            path=self._excerpt.path,
            ranges=f"[{start},{start + length})",
        )


def _check(ranges: Ranges, size_bytes: int) -> None:
    apart = all(before[1] < after[0] for before, after in pairwise(ranges))
    whole = all(is_whole_chunks(start, end - start, size_bytes) for start, end in ranges)
    if not (apart and whole and len(ranges) <= REPAIR_RANGES_MAX):
        raise UsageError(
            "RANGES_INVALID",
            f"{len(ranges)} ranges are no ascending parts of {size_bytes} bytes in whole chunks, "
            f"at most {REPAIR_RANGES_MAX}, with something between them.",
            ranges=len(ranges),
        )
