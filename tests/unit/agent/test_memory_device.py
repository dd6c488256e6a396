import errno

import pytest

from blockferry.errors import CapacityError, DeviceError
from blockferry.limits import MIB
from blockferry_agent.memory_device import Call, MemoryDevice
from blockferry_agent.ports import Extent, UnsupportedZeroMethod, ZeroMethod


def call(device: MemoryDevice, name: Call) -> None:
    if name == "read":
        device.read_into(0, memoryview(bytearray(512)))
    elif name == "write":
        device.write_at(0, b"x" * 512)
    elif name == "zero":
        device.zero_at(0, 512, ZeroMethod.WRITE)
    else:
        device.flush()


CALLS: list[Call] = ["read", "write", "zero", "flush"]


@pytest.mark.parametrize("name", CALLS)
def test_only_the_nth_call_fails(name: Call) -> None:
    device = MemoryDevice(MIB)
    call(device, name)
    device.fail(name, 2)
    call(device, name)
    with pytest.raises(DeviceError) as caught:
        call(device, name)
    assert caught.value.reason == f"DEVICE_IO_{name.upper()}"
    call(device, name)
    assert device.calls[name] == 4


def test_it_may_be_full() -> None:
    device = MemoryDevice(MIB)
    device.fail("write", 1, errno.ENOSPC)
    with pytest.raises(CapacityError):
        call(device, "write")
    assert device.content == bytes(MIB)


def test_garbage_is_garbage_and_the_same_again() -> None:
    device = MemoryDevice(MIB, garbage_seed=5)
    assert device.content == MemoryDevice(MIB, garbage_seed=5).content
    assert 0 < device.content.count(0) < MIB // 100
    assert list(device.extents(0, MIB)) == [Extent(0, MIB, hole=False)]


def test_it_lies_and_lacks_on_request() -> None:
    device = MemoryDevice(MIB, garbage_seed=5)
    before = device.content
    device.lies = frozenset({ZeroMethod.PUNCH_HOLE})
    device.unsupported = frozenset({ZeroMethod.ZERO_RANGE})
    device.zero_at(0, MIB, ZeroMethod.PUNCH_HOLE)
    with pytest.raises(UnsupportedZeroMethod):
        device.zero_at(0, MIB, ZeroMethod.ZERO_RANGE)
    assert device.content == before
    device.zero_at(0, MIB, ZeroMethod.ZERO_OUT)
    assert device.content == bytes(MIB)


def test_a_power_cut_takes_what_was_not_flushed() -> None:
    device = MemoryDevice(8192, volatile=True, tells_holes=True)
    device.write_at(0, b"a" * 8192)
    device.flush()
    device.write_at(0, b"b" * 4096)
    device.write_at(2048, b"c" * 4096)
    device.zero_at(4096, 4096, ZeroMethod.PUNCH_HOLE)
    device.power_cut()
    assert device.content == b"a" * 8192
    assert [one.hole for one in device.extents(0, 8192)] == [False]


def test_holes_follow_punching_and_writing() -> None:
    device = MemoryDevice(5 * 4096 + 100, tells_holes=True)

    def holes() -> list[tuple[int, int]]:
        return [
            (one.start_bytes, one.end_bytes)
            for one in device.extents(0, device.size_bytes)
            if one.hole
        ]

    assert holes() == [(0, device.size_bytes)]
    device.write_at(4097, b"x" * 4096)
    assert holes() == [(0, 4096), (3 * 4096, device.size_bytes)]
    device.write_at(0, bytes(device.size_bytes))
    assert holes() == []
    device.zero_at(1, 3 * 4096, ZeroMethod.PUNCH_HOLE)
    assert holes() == [(4096, 3 * 4096)]
    device.zero_at(4 * 4096, 4196, ZeroMethod.PUNCH_HOLE)
    assert holes() == [(4096, 3 * 4096), (4 * 4096, device.size_bytes)]
    device.zero_at(0, device.size_bytes, ZeroMethod.ZERO_RANGE)
    assert holes() == []
