"""What is on a device, as text: one letter a chunk.

    D  data that compresses
    R  random data, which does not
    0  zeros that were written
    -  a hole

`"DD0D-0"` is a device of six chunks. `tail_bytes` cuts the last one short.
The same letter at the same place has the same content for the same seed.
"""

import random
from pathlib import Path

from blockferry.limits import CHUNK_BYTES
from blockferry_agent.memory_device import MemoryDevice
from blockferry_agent.ports import ZeroMethod

LETTERS = "DR0-"


def size_bytes(layout: str, tail_bytes: int = CHUNK_BYTES) -> int:
    """Size of the device in bytes; `tail_bytes` is what its last chunk has."""
    return (len(layout) - 1) * CHUNK_BYTES + tail_bytes if layout else 0


def chunk(layout: str, index: int, *, tail_bytes: int = CHUNK_BYTES, seed: int = 0) -> bytes:
    """Content of one chunk."""
    length = tail_bytes if index == len(layout) - 1 else CHUNK_BYTES
    letter = layout[index]
    if letter in "0-":
        return bytes(length)
    dice = random.Random(f"{seed} {index} {letter}")
    if letter == "R":
        return dice.randbytes(length)
    line = dice.randbytes(24)
    return (line * (length // len(line) + 1))[:length]


def content(layout: str, *, tail_bytes: int = CHUNK_BYTES, seed: int = 0) -> bytes:
    """Content of the whole device."""
    return b"".join(
        chunk(layout, index, tail_bytes=tail_bytes, seed=seed) for index in range(len(layout))
    )


def data_bytes(layout: str, tail_bytes: int = CHUNK_BYTES) -> int:
    """Bytes in chunks that hold data."""
    lengths = [CHUNK_BYTES] * (len(layout) - 1) + [tail_bytes]
    return sum(
        length for letter, length in zip(layout, lengths, strict=False) if letter not in "0-"
    )


def make_file(path: Path, layout: str, *, tail_bytes: int = CHUNK_BYTES, seed: int = 0) -> Path:
    """Make a file with that layout; its holes are real ones."""
    with path.open("wb") as file:
        for index, letter in enumerate(layout):
            if letter != "-":
                file.seek(index * CHUNK_BYTES)
                file.write(chunk(layout, index, tail_bytes=tail_bytes, seed=seed))
        file.truncate(size_bytes(layout, tail_bytes))
    return path


def make_memory(
    layout: str, *, tail_bytes: int = CHUNK_BYTES, seed: int = 0, tells_holes: bool = True
) -> MemoryDevice:
    """Make a device in memory with that layout."""
    device = MemoryDevice(size_bytes(layout, tail_bytes), tells_holes=tells_holes, block_bytes=1)
    for index, letter in enumerate(layout):
        data = chunk(layout, index, tail_bytes=tail_bytes, seed=seed)
        if letter == "-":
            device.zero_at(index * CHUNK_BYTES, len(data), ZeroMethod.PUNCH_HOLE)
        else:
            device.write_at(index * CHUNK_BYTES, data)
    device.calls.clear()
    return device
