"""A device cut into chunks: where each lies, whether it is zero, its digest.

Rules:
* Chunk `i` is the bytes [i * CHUNK_BYTES, (i + 1) * CHUNK_BYTES) of the device;
  only the last one may be shorter. A device of size 0 has no chunks.
* The digest of a chunk is plain BLAKE3 (32 bytes) of its content, zero or not.
"""

from functools import lru_cache
from typing import Final

from blake3 import blake3

from blockferry.errors import UsageError
from blockferry.limits import CHUNK_BYTES, KIB

_ZEROS: Final = bytes(64 * KIB)
"""What is compared with. Small enough to stay in the CPU's cache, so that only
the chunk itself is fetched from memory; a buffer of 1 MiB halves the speed."""


def chunk_count(size_bytes: int) -> int:
    """Return how many chunks a device of `size_bytes` (at least 0) has.

    Raises:
        UsageError: OUT_OF_RANGE, the size is negative.
    """
    if size_bytes < 0:
        raise UsageError(
            "OUT_OF_RANGE",
            f"A size of {size_bytes} bytes is negative; give the size of the device.",
            size_bytes=size_bytes,
        )
    return -(-size_bytes // CHUNK_BYTES)


def chunk_range(index: int, size_bytes: int) -> tuple[int, int]:
    """Return (offset_bytes, length_bytes) of chunk `index` in [0, chunk_count(size_bytes)).

    Raises:
        UsageError: OUT_OF_RANGE, there is no such chunk.
    """
    count = chunk_count(size_bytes)
    if not 0 <= index < count:
        raise UsageError(
            "OUT_OF_RANGE",
            f"There is no chunk {index} in {size_bytes} bytes, which are {count} chunks.",
            index=index,
            size_bytes=size_bytes,
        )
    offset_bytes = index * CHUNK_BYTES
    return offset_bytes, min(CHUNK_BYTES, size_bytes - offset_bytes)


def is_whole_chunks(offset_bytes: int, length_bytes: int, size_bytes: int) -> bool:
    """Whether a non-empty range starts at a chunk and ends at one or at the device's end."""
    end_bytes = offset_bytes + length_bytes
    return (
        length_bytes > 0
        and offset_bytes >= 0
        and end_bytes <= size_bytes
        and offset_bytes % CHUNK_BYTES == 0
        and (end_bytes % CHUNK_BYTES == 0 or end_bytes == size_bytes)
    )


def is_zero(view: memoryview | bytes | bytearray) -> bool:
    """Whether all bytes of `view` (uint8, shape (n,), n at least 0) are zero.

    Stops at the first 64 KiB that is not. `bytes.startswith` takes any buffer
    and is a memcmp; comparing memoryviews goes element by element instead.
    """
    length = len(view)
    if length <= len(_ZEROS):
        return _ZEROS.startswith(view)
    with memoryview(view) as whole:
        return all(
            _ZEROS.startswith(whole[start : start + len(_ZEROS)])
            for start in range(0, length, len(_ZEROS))
        )


def digest(view: memoryview | bytes | bytearray) -> bytes:
    """Return the BLAKE3 digest (32 bytes) of one chunk's content.

    Releases the GIL for all but tiny inputs.
    """
    return blake3(view).digest()


@lru_cache(maxsize=8)
def zero_digest(length_bytes: int) -> bytes:
    """Return the digest of a chunk of `length_bytes` in [1, CHUNK_BYTES] zeros."""
    if not 1 <= length_bytes <= CHUNK_BYTES:
        raise UsageError(
            "OUT_OF_RANGE",
            f"A chunk is 1 to {CHUNK_BYTES} bytes long, not {length_bytes}.",
            length_bytes=length_bytes,
        )
    return digest(bytes(length_bytes))
