import mmap

import pytest
from blake3 import blake3

from blockferry.errors import UsageError
from blockferry.limits import CHUNK_BYTES, KIB, MIB
from blockferry_agent.chunk import (
    chunk_count,
    chunk_range,
    digest,
    is_whole_chunks,
    is_zero,
    zero_digest,
)

SIZES = {
    "empty": 0,
    "one byte": 1,
    "a byte short": CHUNK_BYTES - 1,
    "one chunk": CHUNK_BYTES,
    "a byte more": CHUNK_BYTES + 1,
    "5 TiB and a sector": 5 * MIB * MIB + 512,
}


@pytest.mark.parametrize("size", SIZES.values(), ids=SIZES.keys())
def test_chunks_cover_the_device_once(size: int) -> None:
    count = chunk_count(size)
    if size == 0:
        assert count == 0
        return
    assert chunk_range(0, size)[0] == 0
    offset, length = chunk_range(count - 1, size)
    assert offset + length == size
    assert 1 <= length <= CHUNK_BYTES
    for index in (0, count // 2, count - 2):
        if 0 <= index < count - 1:
            assert chunk_range(index, size) == (index * CHUNK_BYTES, CHUNK_BYTES)


@pytest.mark.parametrize(("index", "size"), [(-1, 10), (1, 10), (0, 0), (1, CHUNK_BYTES), (0, -1)])
def test_no_chunk_outside_the_device(index: int, size: int) -> None:
    with pytest.raises(UsageError) as caught:
        chunk_range(index, size)
    assert caught.value.reason == "OUT_OF_RANGE"


@pytest.mark.parametrize(
    ("offset", "length", "whole"),
    [
        (0, CHUNK_BYTES, True),
        (CHUNK_BYTES, CHUNK_BYTES + 7, True),
        (2 * CHUNK_BYTES, 7, True),
        (0, 2 * CHUNK_BYTES + 7, True),
        (0, 0, False),
        (0, 7, False),
        (7, CHUNK_BYTES, False),
        (CHUNK_BYTES, 7, False),
        (2 * CHUNK_BYTES, 8, False),
        (-CHUNK_BYTES, CHUNK_BYTES, False),
    ],
)
def test_whole_chunks(offset: int, length: int, whole: bool) -> None:
    assert is_whole_chunks(offset, length, 2 * CHUNK_BYTES + 7) is whole


@pytest.mark.parametrize("length", [0, 1, 511, 64 * KIB, 64 * KIB + 1, CHUNK_BYTES, 3 * MIB + 5])
def test_zeros_are_zero_and_one_bit_is_not(length: int) -> None:
    data = bytearray(length)
    assert is_zero(data)
    assert is_zero(memoryview(data))
    assert is_zero(bytes(data))
    for place in {0, length // 2, length - 1} if length else ():
        data[place] = 1
        assert not is_zero(memoryview(data)), place
        data[place] = 0


def test_zero_check_reads_mapped_memory() -> None:
    with mmap.mmap(-1, CHUNK_BYTES) as memory, memoryview(memory) as view:
        assert is_zero(view)
        view[-1] = 255
        assert not is_zero(view)


def test_digest_is_plain_blake3_of_any_buffer() -> None:
    data = bytes(range(256)) * 5000
    assert digest(data) == digest(memoryview(data)) == blake3(data).digest()
    assert len(digest(b"")) == 32


@pytest.mark.parametrize("length", [1, 512, CHUNK_BYTES])
def test_zero_digest_is_the_digest_of_zeros(length: int) -> None:
    assert zero_digest(length) == digest(bytes(length))


@pytest.mark.parametrize("length", [0, -1, CHUNK_BYTES + 1])
def test_zero_digest_knows_no_other_lengths(length: int) -> None:
    with pytest.raises(UsageError):
        zero_digest(length)
