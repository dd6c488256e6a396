"""Data to move, generated from a seed: the same bytes on every machine and run."""

import os
import random
from collections.abc import Iterator
from pathlib import Path

MIB = 1 << 20
STRIPE_BYTES = 64 * MIB
SEED = 20261122


def half_full(path: Path, size_bytes: int) -> None:
    """A sparse file whose even stripes hold data that compresses like a system's files.

    Half of the data's blocks are random bytes, as in compressed files, and half
    words and small integers, as in text and programs: zstd -1 shrinks the whole
    to about 60 %.
    """
    blocks = _blocks(random.Random(SEED))
    with path.open("wb") as file:
        file.truncate(size_bytes)
        for start in range(0, size_bytes, 2 * STRIPE_BYTES):
            file.seek(start)
            for _ in range(min(STRIPE_BYTES, size_bytes - start) // MIB):
                file.write(next(blocks))
        file.flush()
        os.fsync(file.fileno())


def _blocks(source: random.Random) -> Iterator[bytes]:
    """1 MiB blocks, all different: a compressor with a long window finds nothing twice."""
    words = [source.randbytes(source.randint(2, 9)).hex().encode() for _ in range(4096)]
    while True:
        yield source.randbytes(MIB)
        text = b" ".join(source.choices(words, k=MIB // 8))
        yield text[:MIB].ljust(MIB, b"\n")
