import pytest

from blockferry.limits import CHUNK_BYTES, KIB, MIB
from blockferry_agent.layout import Piece
from blockferry_agent.memory_device import MemoryDevice
from blockferry_agent.ports import ZeroMethod
from blockferry_agent.writer import DeviceWriter


def garbage(size: int, *, block: int = 512) -> MemoryDevice:
    return MemoryDevice(size, garbage_seed=1, block_bytes=block)


def chunk_of(number: int) -> Piece:
    return Piece(number * CHUNK_BYTES, CHUNK_BYTES, hole=False)


def test_a_chunk_is_written_where_it_belongs() -> None:
    device = garbage(3 * MIB)
    before = device.content
    DeviceWriter(device).write(MIB, b"x" * MIB)
    assert device.content == before[:MIB] + b"x" * MIB + before[2 * MIB :]


def test_garbage_is_zeroed_and_the_rest_stays() -> None:
    device = garbage(3 * MIB)
    before = device.content
    DeviceWriter(device).zero(chunk_of(1))
    assert device.content == before[:MIB] + bytes(MIB) + before[2 * MIB :]


def test_what_reads_zero_is_left_alone() -> None:
    device = MemoryDevice(2 * MIB)
    DeviceWriter(device).zero(chunk_of(0))
    assert (device.calls["read"], device.calls["zero"], device.calls["write"]) == (1, 0, 0)


def test_a_promised_hole_is_not_even_read() -> None:
    device = MemoryDevice(4 * MIB, tells_holes=True)
    DeviceWriter(device).zero(Piece(0, 4 * MIB, hole=True))
    assert not device.calls


@pytest.mark.parametrize("flaw", ["unsupported", "lies"])
@pytest.mark.parametrize("count", [1, 2, 3])
def test_methods_that_do_not_work_are_dropped_for_good(flaw: str, count: int) -> None:
    device = garbage(4 * MIB)
    methods = [method for method in ZeroMethod if method is not ZeroMethod.WRITE][:count]
    setattr(device, flaw, frozenset(methods))
    writer = DeviceWriter(device)
    writer.zero(chunk_of(0))
    tries = device.calls["zero"]
    assert tries == count + 1
    writer.zero(chunk_of(1))
    assert device.calls["zero"] == tries + 1
    assert device.content[: 2 * MIB] == bytes(2 * MIB)


def test_a_method_is_checked_once() -> None:
    device = garbage(4 * MIB)
    writer = DeviceWriter(device)
    for number in range(4):
        writer.zero(chunk_of(number))
    assert device.calls["read"] == 4 + 1


def test_a_method_that_leaves_the_end_of_a_short_range_is_caught() -> None:
    class Unmaps(MemoryDevice):
        """In units of 64 KiB, and says nothing of what is left."""

        def zero_at(self, offset_bytes: int, length_bytes: int, method: ZeroMethod) -> None:
            if method is not ZeroMethod.WRITE:
                length_bytes -= length_bytes % (64 << 10)
            super().zero_at(offset_bytes, length_bytes, method)

    device = Unmaps(MIB + 66 * KIB, garbage_seed=1)
    writer = DeviceWriter(device)
    writer.zero(chunk_of(0))
    writer.zero(Piece(MIB, 66 * KIB, hole=False))
    assert device.content == bytes(MIB + 66 * KIB)


@pytest.mark.parametrize("zero", [True, False], ids=["zeros", "data"])
@pytest.mark.parametrize("tail", [1, 511, 513, 5000])
def test_what_ends_inside_a_block_leaves_the_blocks_rest(tail: int, zero: bool) -> None:
    device = garbage(2 * MIB)
    before = device.content
    writer = DeviceWriter(device)
    if zero:
        writer.zero(Piece(MIB, tail, hole=False))
    else:
        writer.write(MIB, b"y" * tail)
    expected = bytes(tail) if zero else b"y" * tail
    assert device.content == before[:MIB] + expected + before[MIB + tail :]


def test_the_last_bytes_of_a_file_are_written_as_they_are() -> None:
    device = garbage(MIB + 7, block=1)
    writer = DeviceWriter(device)
    writer.write(MIB, b"1234567")
    writer.zero(Piece(0, MIB, hole=False))
    assert device.content == bytes(MIB) + b"1234567"
