"""The digests of all chunks of a transfer, and the root digest over them.

Public definition of the root, which `blockferry digest` prints as `blake3:<hex>`:

    root = BLAKE3 in key derivation mode, 32 bytes, with the context string
           "blockferry v1 manifest root", over
             size of the device in bytes   unsigned, 8 bytes, little-endian
             CHUNK_BYTES (1,048,576)       unsigned, 4 bytes, little-endian
             digest of every chunk         32 bytes each, ascending

The digest of a chunk is plain BLAKE3 of its content (chunk.py).

On disk a manifest is nothing but these digests, 32 bytes a MiB: memory does not
grow with the volume. What of it counts after a crash, the journal says.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Final, TypeVar

from blake3 import blake3

from blockferry.errors import DeviceError, PreconditionError, UsageError
from blockferry.limits import CHUNK_BYTES, DIGEST_BYTES, MANIFEST_RUN_CHUNKS
from blockferry_agent.chunk import chunk_count, chunk_range, zero_digest
from blockferry_agent.refusal import refused

M = TypeVar("M", bound="Manifest")

ROOT_CONTEXT: Final = "blockferry v1 manifest root"
"""Key derivation context: no chunk can be made whose digest equals a root."""


class RootHasher:
    """Computes a root from digests as they come; not thread-safe."""

    def __init__(self, size_bytes: int) -> None:
        """Begin the root of a device of `size_bytes`, at least 0."""
        self._left = chunk_count(size_bytes)
        self._hasher = blake3(derive_key_context=ROOT_CONTEXT)
        self._hasher.update(size_bytes.to_bytes(8, "little") + CHUNK_BYTES.to_bytes(4, "little"))

    def update(self, digests: bytes) -> None:
        """Add the digests of the next chunks: 32 bytes each, any number.

        Raises:
            UsageError: DIGESTS_INVALID, part of a digest or more than the device has.
        """
        chunks = _whole(digests)
        if chunks > self._left:
            raise UsageError(
                "DIGESTS_INVALID",
                f"{chunks} digests were added where only {self._left} chunks are left.",
                chunks=chunks,
            )
        self._left -= chunks
        self._hasher.update(digests)

    def digest(self) -> bytes:
        """Return the root (32 bytes).

        Raises:
            PreconditionError: MANIFEST_INCOMPLETE, digests are missing.
        """
        if self._left:
            raise PreconditionError(
                "MANIFEST_INCOMPLETE",
                f"The root digest needs {self._left} more chunks; finish the transfer first.",
                missing_chunks=self._left,
            )
        return self._hasher.digest()


class Manifest:
    """Digests of chunks [0, count) of one transfer, in a file; thread-safe.

    Every method that reads or writes may raise CapacityError/NO_SPACE or
    DeviceError/DEVICE_IO_… with the file's path.
    """

    def __init__(self, path: Path, size_bytes: int, fd: int) -> None:
        """Take over `fd`; use `open`."""
        self._path = path
        self._size_bytes = size_bytes
        self._capacity = chunk_count(size_bytes)
        self._fd = fd
        self._lock = threading.Lock()
        self._count = 0

    @classmethod
    def open(cls: type[M], path: Path, size_bytes: int) -> M:
        """Open the manifest at `path`, or create it with mode 0600.

        A torn last digest is cut off. A file with more digests than `size_bytes`
        has chunks is another transfer's: it starts empty.
        """
        try:
            fd = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        except OSError as error:
            raise refused("open", path, error) from error
        manifest = cls(path, size_bytes, fd)
        try:
            manifest._recover()
        except BaseException:
            manifest.close()
            raise
        return manifest

    @property
    def size_bytes(self) -> int:
        """Size of the device that this is the manifest of."""
        return self._size_bytes

    @property
    def count(self) -> int:
        """Chunks [0, count) are known."""
        return self._count

    def put(self, first_chunk: int, digests: bytes) -> None:
        """Set the digests of chunks from `first_chunk` on: 32 bytes each, at least one.

        Extends the manifest, rewrites a known part, or both; never leaves a gap.

        Raises:
            UsageError: MANIFEST_GAP, `first_chunk` is beyond `count`;
                DIGESTS_INVALID, part of a digest or more than the device has.
        """
        chunks = _whole(digests)
        with self._lock:
            self._check_place(first_chunk, chunks)
            self._write(first_chunk * DIGEST_BYTES, digests)
            self._count = max(self._count, first_chunk + chunks)

    def put_zeros(self, first_chunk: int, chunks: int) -> None:
        """Set `chunks` digests, at least 1, from `first_chunk` on to those of zeros.

        Needs at most 1 MiB of memory, whatever the number. Raises as `put`.
        """
        with self._lock:
            self._check_place(first_chunk, chunks)
            self._write_zeros(first_chunk, first_chunk + chunks)
            self._count = max(self._count, first_chunk + chunks)

    def runs(
        self, first_chunk: int = 0, end_chunk: int | None = None
    ) -> Iterator[tuple[int, bytes]]:
        """Yield (first chunk, digests) over [first_chunk, end_chunk), ascending.

        Args:
            first_chunk: At least 0.
            end_chunk: Exclusive; `count` at the call if None. Cut to `count`.

        Yields:
            Runs of 1 to MANIFEST_RUN_CHUNKS chunks, 32 bytes each.
        """
        end = self._count if end_chunk is None else min(end_chunk, self._count)
        for start in range(first_chunk, end, MANIFEST_RUN_CHUNKS):
            chunks = min(MANIFEST_RUN_CHUNKS, end - start)
            yield start, self._read(start * DIGEST_BYTES, chunks * DIGEST_BYTES)

    def truncate(self, count: int) -> None:
        """Forget all chunks from `count` (at least 0) on."""
        with self._lock:
            if count >= self._count:
                return
            self._count = max(count, 0)
            try:
                os.ftruncate(self._fd, self._count * DIGEST_BYTES)
            except OSError as error:
                raise refused("write", self._path, error) from error

    def sync(self) -> None:
        """Return when all that was put would survive a power cut."""
        try:
            os.fdatasync(self._fd)
        except OSError as error:
            raise refused("flush", self._path, error) from error

    def root(self) -> bytes:
        """Return the root digest (32 bytes), reading the whole manifest.

        Raises:
            PreconditionError: MANIFEST_INCOMPLETE, chunks are missing.
        """
        hasher = RootHasher(self._size_bytes)
        for _, digests in self.runs():
            hasher.update(digests)
        return hasher.digest()

    def close(self) -> None:
        """Release the file. Idempotent; no other method may be in use."""
        with self._lock:
            if self._fd >= 0:
                os.close(self._fd)
                self._fd = -1

    def __enter__(self: M) -> M:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _recover(self) -> None:
        try:
            found = os.fstat(self._fd).st_size // DIGEST_BYTES
            self._count = found if found <= self._capacity else 0
            os.ftruncate(self._fd, self._count * DIGEST_BYTES)
        except OSError as error:
            raise refused("open", self._path, error) from error

    def _check_place(self, first_chunk: int, chunks: int) -> None:
        if not 0 <= first_chunk <= self._count:
            raise UsageError(
                "MANIFEST_GAP",
                f"Digests from chunk {first_chunk} on would leave a gap after the "
                f"{self._count} that are known; send those between first.",
                first_chunk=first_chunk,
                count=self._count,
            )
        if chunks < 1 or first_chunk + chunks > self._capacity:
            raise UsageError(
                "DIGESTS_INVALID",
                f"{chunks} digests from chunk {first_chunk} on do not fit a device of "
                f"{self._capacity} chunks.",
                first_chunk=first_chunk,
                chunks=chunks,
                capacity=self._capacity,
            )

    def _write_zeros(self, first_chunk: int, end_chunk: int) -> None:
        longest = min(end_chunk - first_chunk, MANIFEST_RUN_CHUNKS)
        run = zero_digest(CHUNK_BYTES) * longest
        for start in range(first_chunk, end_chunk, longest):
            chunks = min(longest, end_chunk - start)
            self._write(start * DIGEST_BYTES, run[: chunks * DIGEST_BYTES])
        if end_chunk == self._capacity:
            _, length_bytes = chunk_range(end_chunk - 1, self._size_bytes)
            self._write((end_chunk - 1) * DIGEST_BYTES, zero_digest(length_bytes))

    def _write(self, offset: int, data: bytes) -> None:
        done = 0
        with memoryview(data) as view:
            try:
                while done < len(view):
                    done += os.pwrite(self._fd, view[done:], offset + done)
            except OSError as error:
                raise refused("write", self._path, error) from error

    def _read(self, offset: int, length: int) -> bytes:
        parts: list[bytes] = []
        while length:
            try:
                part = os.pread(self._fd, length, offset)
            except OSError as error:
                raise refused("read", self._path, error) from error
            if not part:
                raise DeviceError(
                    "DEVICE_IO_READ",
                    f"The manifest {self._path} ended early; somebody else changed it.",
                    path=self._path,
                )
            parts.append(part)
            offset += len(part)
            length -= len(part)
        return b"".join(parts)


def _whole(digests: bytes) -> int:
    if len(digests) % DIGEST_BYTES:
        raise UsageError(
            "DIGESTS_INVALID",
            f"{len(digests)} bytes are no whole number of digests of {DIGEST_BYTES} bytes.",
            length_bytes=len(digests),
        )
    return len(digests) // DIGEST_BYTES
