"""What the BlockDevice port promises, held by every implementation of it."""

import mmap
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Final, NamedTuple

import pytest

from blockferry.errors import BlockferryError, DeviceError, UsageError
from blockferry.limits import CHUNK_BYTES, KIB, MIB
from blockferry_agent.blockdev import open_device
from blockferry_agent.excerpt import Excerpt
from blockferry_agent.filedevice import FileDevice
from blockferry_agent.memory_device import MemoryDevice
from blockferry_agent.ports import BlockDevice, UnsupportedZeroMethod, ZeroMethod
from tests.loops import loop_device

SIZE = 4 * MIB
GARBAGE = bytes(range(1, 256)) * (SIZE // 255 + 1)


class Kind(NamedTuple):
    make: Callable[[ExitStack, Path], BlockDevice]
    tells_holes: bool


def sparse(directory: Path) -> Path:
    path = directory / "volume.img"
    with path.open("wb") as image:
        image.truncate(SIZE)
    return path


def memory(stack: ExitStack, directory: Path) -> BlockDevice:
    return MemoryDevice(SIZE, tells_holes=True)


def file(stack: ExitStack, directory: Path) -> BlockDevice:
    return open_device(sparse(directory), writable=True)


def file_without_direct(stack: ExitStack, directory: Path) -> BlockDevice:
    return FileDevice(sparse(directory), writable=True, is_block=False, direct=False)


def excerpt(stack: ExitStack, directory: Path) -> BlockDevice:
    inside = MemoryDevice(2 * SIZE + 77, tells_holes=True)
    ranges = [(MIB, 3 * MIB), (5 * MIB, 6 * MIB), (7 * MIB, 8 * MIB)]
    return Excerpt(inside, ranges, inside.size_bytes)


def loop(stack: ExitStack, directory: Path) -> BlockDevice:
    return open_device(stack.enter_context(loop_device(sparse(directory))), writable=True)


def loop_of_4k_blocks(stack: ExitStack, directory: Path) -> BlockDevice:
    at = stack.enter_context(loop_device(sparse(directory), "--sector-size", "4096"))
    return open_device(at, writable=True)


KINDS: Final = {
    "memory": pytest.param(Kind(memory, tells_holes=True)),
    "excerpt": pytest.param(Kind(excerpt, tells_holes=False)),
    "file": pytest.param(Kind(file, tells_holes=True)),
    "file, buffered": pytest.param(Kind(file_without_direct, tells_holes=True)),
    "loop": pytest.param(Kind(loop, tells_holes=False), marks=pytest.mark.root),
    "loop, 4k": pytest.param(Kind(loop_of_4k_blocks, tells_holes=False), marks=pytest.mark.root),
}


@pytest.fixture(params=list(KINDS.values()), ids=list(KINDS))
def kind(request: pytest.FixtureRequest) -> Kind:
    assert isinstance(request.param, Kind)
    return request.param


@pytest.fixture
def device(kind: Kind, tmp_path: Path) -> Iterator[BlockDevice]:
    with ExitStack() as stack:
        opened = kind.make(stack, tmp_path)
        stack.callback(opened.close)
        yield opened


@pytest.fixture
def page() -> Iterator[memoryview]:
    """A page-aligned buffer of one chunk."""
    with mmap.mmap(-1, CHUNK_BYTES) as memory, memoryview(memory) as view:
        yield view


def read(device: BlockDevice, offset: int, length: int) -> bytes:
    buffer = bytearray(length)
    device.read_into(offset, memoryview(buffer))
    return bytes(buffer)


def refusal(act: Callable[[], object]) -> str:
    with pytest.raises(BlockferryError) as caught:
        act()
    return caught.value.reason


def test_it_describes_itself(device: BlockDevice) -> None:
    assert device.size_bytes == SIZE
    assert device.block_bytes in (1, 512, 4096)
    assert device.path
    assert device.zero_methods[-1] is ZeroMethod.WRITE
    assert list(device.zero_methods) == [one for one in ZeroMethod if one in device.zero_methods]


def test_what_was_written_is_read(device: BlockDevice, page: memoryview) -> None:
    data = GARBAGE[:CHUNK_BYTES]
    device.write_at(CHUNK_BYTES, memoryview(data))
    device.read_into(CHUNK_BYTES, page)
    assert bytes(page) == data
    assert read(device, 0, CHUNK_BYTES) == bytes(CHUNK_BYTES)
    assert read(device, 2 * CHUNK_BYTES, CHUNK_BYTES) == bytes(CHUNK_BYTES)


def test_bytes_are_taken_as_well_as_views(device: BlockDevice) -> None:
    device.write_at(0, GARBAGE[:4096])
    assert read(device, 0, 4096) == GARBAGE[:4096]


@pytest.mark.parametrize(
    ("offset", "length"),
    [(0, 1), (1, 1), (4095, 2), (511, 4098), (SIZE - 1, 1), (SIZE - 5000, 5000), (3, CHUNK_BYTES)],
)
def test_reads_need_no_alignment(device: BlockDevice, offset: int, length: int) -> None:
    for place in range(0, SIZE, CHUNK_BYTES):
        device.write_at(place, GARBAGE[place : place + CHUNK_BYTES])
    assert read(device, offset, length) == GARBAGE[offset : offset + length]


def test_the_last_block_is_written_and_read(device: BlockDevice, page: memoryview) -> None:
    device.write_at(SIZE - 4096, GARBAGE[:4096])
    device.read_into(SIZE - 4096, page[:4096])
    assert bytes(page[:4096]) == GARBAGE[:4096]


@pytest.mark.parametrize(("offset", "length"), [(SIZE, 4096), (SIZE - 4096, 8192), (-4096, 4096)])
def test_nothing_is_done_beyond_the_device(device: BlockDevice, offset: int, length: int) -> None:
    data = memoryview(bytearray(length))
    assert refusal(lambda: device.read_into(offset, data)) == "OUT_OF_RANGE"
    assert refusal(lambda: device.write_at(offset, data)) == "OUT_OF_RANGE"
    assert refusal(lambda: device.zero_at(offset, length, ZeroMethod.WRITE)) == "OUT_OF_RANGE"
    assert refusal(lambda: list(device.extents(offset, offset + length))) == "OUT_OF_RANGE"


@pytest.mark.parametrize("method", list(ZeroMethod))
def test_zeroed_ranges_read_as_zeros_and_neighbours_stay(
    device: BlockDevice, method: ZeroMethod, page: memoryview
) -> None:
    for place in range(0, SIZE, CHUNK_BYTES):
        device.write_at(place, GARBAGE[place : place + CHUNK_BYTES])
    start, length = 64 * KIB, 2 * CHUNK_BYTES
    try:
        device.zero_at(start, length, method)
    except UnsupportedZeroMethod:
        assert method is not ZeroMethod.WRITE
        assert method not in device.zero_methods
        length = 0
    expected = bytearray(GARBAGE[:SIZE])
    expected[start : start + length] = bytes(length)
    for place in range(0, SIZE, CHUNK_BYTES):
        device.read_into(place, page)
        assert bytes(page) == expected[place : place + CHUNK_BYTES]


def test_extents_cover_what_was_asked(device: BlockDevice) -> None:
    device.write_at(CHUNK_BYTES, GARBAGE[:CHUNK_BYTES])
    for start, end in ((0, SIZE), (4096, SIZE - 4096), (CHUNK_BYTES + 5, CHUNK_BYTES + 6)):
        place = start
        for extent in device.extents(start, end):
            assert extent.start_bytes == place
            assert extent.end_bytes > place
            place = extent.end_bytes
        assert place == end
    assert list(device.extents(7, 7)) == []


def test_a_hole_is_a_promise_of_zeros(device: BlockDevice, kind: Kind) -> None:
    device.write_at(0, GARBAGE[:CHUNK_BYTES])
    device.write_at(2 * CHUNK_BYTES, bytes(CHUNK_BYTES))
    extents = list(device.extents(0, SIZE))
    for extent in extents:
        if extent.hole:
            length = extent.end_bytes - extent.start_bytes
            assert read(device, extent.start_bytes, length) == bytes(length)
    if kind.tells_holes:
        assert [(one.start_bytes, one.hole) for one in extents] == [
            (0, False),
            (CHUNK_BYTES, True),
            (2 * CHUNK_BYTES, False),
            (3 * CHUNK_BYTES, True),
        ]
    else:
        assert [one.hole for one in extents] == [False]


def test_flush_and_writeback_take_any_moment(device: BlockDevice) -> None:
    device.flush()
    device.write_at(0, GARBAGE[:CHUNK_BYTES])
    device.start_writeback(0, CHUNK_BYTES)
    device.flush()
    device.flush()
    assert read(device, 0, CHUNK_BYTES) == GARBAGE[:CHUNK_BYTES]


def test_closing_twice_is_closing(device: BlockDevice) -> None:
    device.close()
    device.close()


def test_errors_name_the_device(device: BlockDevice) -> None:
    with pytest.raises(UsageError) as caught:
        device.write_at(SIZE, b"x")
    assert device.path in caught.value.message
    assert not isinstance(caught.value, DeviceError)
