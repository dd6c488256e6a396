"""What a write probe writes, where, for how long, and what it makes of it."""

import threading
from typing import Literal

import pytest
import zstandard

from blockferry.errors import BlockferryError, CancelledError, DeviceError
from blockferry.limits import CHUNK_BYTES, MIB
from blockferry.v1 import agent_pb2
from blockferry_agent.memory_device import MemoryDevice
from blockferry_agent.server import SystemClock
from blockferry_agent.write_probe import BYTES_MAX, WriteProbeFlow
from tests.fakes.clock import ManualClock

BLOCK_BYTES = 4096


class SlowDevice(MemoryDevice):
    """Writes cost nothing, flushes the time that `bytes_per_second` need for what is dirty."""

    def __init__(self, size_bytes: int, clock: ManualClock, bytes_per_second: int) -> None:
        super().__init__(size_bytes)
        self._clock = clock
        self._rate = bytes_per_second
        self._dirty = 0
        self._counting = threading.Lock()

    def write_at(self, offset_bytes: int, data: memoryview | bytes) -> None:
        super().write_at(offset_bytes, data)
        with self._counting:
            self._dirty += len(data)

    def flush(self) -> None:
        with self._counting:
            dirty, self._dirty = self._dirty, 0
        self._clock.sleep(dirty / self._rate)
        super().flush()


class EndlessDevice(SlowDevice):
    """As large as it says, with room for what is written at its beginning only."""

    @property
    def size_bytes(self) -> int:
        return 1 << 50

    def write_at(self, offset_bytes: int, data: memoryview | bytes) -> None:
        self.reached = offset_bytes + len(data)
        super().write_at(0, data)


def result_of(flow: WriteProbeFlow) -> agent_pb2.Job:
    job = agent_pb2.Job()
    flow.report(job)
    return job


@pytest.mark.parametrize(
    ("size", "written"),
    [
        pytest.param(0, 0, id="empty"),
        pytest.param(8 * CHUNK_BYTES - 1, 0, id="an eighth is no chunk"),
        pytest.param(8 * CHUNK_BYTES, 1, id="one chunk"),
        pytest.param(47 * CHUNK_BYTES + 512, 5, id="whole chunks only"),
    ],
)
def test_an_eighth_is_written_and_nothing_beyond(size: int, written: int) -> None:
    device = MemoryDevice(size + 2 * MIB, garbage_seed=1, volatile=True)
    before = device.content
    flow = WriteProbeFlow(device, size, 5.0, SystemClock())
    flow.run()
    device.power_cut()
    end = written * CHUNK_BYTES
    assert device.content[end:] == before[end:]
    assert device.calls["write"] == written
    assert all(
        device.content[at : at + CHUNK_BYTES] != before[at : at + CHUNK_BYTES]
        for at in range(0, end, CHUNK_BYTES)
    ), "what was told of is durable"
    assert bool(result_of(flow).probe_result.write_bytes_per_second) == bool(written)
    assert result_of(flow).progress.size_bytes == end
    assert not result_of(flow).progress.committed_bytes


def test_nothing_of_it_can_be_compressed_or_stored_once() -> None:
    device = MemoryDevice(8 * 24 * MIB)
    WriteProbeFlow(device, device.size_bytes, 5.0, SystemClock()).run()
    noise = device.content[: 24 * MIB]
    blocks = {noise[at : at + BLOCK_BYTES] for at in range(0, len(noise), BLOCK_BYTES)}
    assert len(blocks) == len(noise) // BLOCK_BYTES
    assert len(zstandard.compress(noise[:CHUNK_BYTES])) >= CHUNK_BYTES


@pytest.mark.parametrize("mib_per_second", [1, 20, 100])
def test_the_rate_is_that_of_what_was_durable(mib_per_second: int) -> None:
    clock = ManualClock()
    device = EndlessDevice(CHUNK_BYTES, clock, mib_per_second * MIB)
    flow = WriteProbeFlow(device, 1 << 40, 2.0, clock)
    begun = clock.monotonic()
    flow.run()
    # What a flush takes with it beyond what it was asked for counts at the next.
    rate = result_of(flow).probe_result.write_bytes_per_second / MIB
    assert 0.6 * mib_per_second <= rate <= 1.4 * mib_per_second
    assert clock.monotonic() - begun <= 3 * 2.0 + 3.0 / mib_per_second


def test_a_fast_device_is_written_to_the_bound() -> None:
    device = EndlessDevice(CHUNK_BYTES, ManualClock(), 1 << 50)
    WriteProbeFlow(device, 1 << 40, 10.0, ManualClock()).run()
    assert device.reached == BYTES_MAX


@pytest.mark.parametrize("call", ["write", "flush"])
@pytest.mark.parametrize("nth", [1, 2])
def test_a_device_that_fails_ends_it(call: Literal["write", "flush"], nth: int) -> None:
    device = MemoryDevice(8 * 8 * MIB)
    device.fail(call, nth)
    with pytest.raises(DeviceError):
        WriteProbeFlow(device, device.size_bytes, 5.0, SystemClock()).run()


def test_it_stops_when_asked() -> None:
    clock = ManualClock()
    device = EndlessDevice(CHUNK_BYTES, clock, 1000)
    flow = WriteProbeFlow(device, 1 << 40, 10.0, SystemClock())
    errors: list[BlockferryError] = []

    def run() -> None:
        try:
            flow.run()
        except BlockferryError as error:
            errors.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    flow.cancel(CancelledError("CANCELLED", "enough"))
    thread.join(20)
    assert not thread.is_alive()
    assert [error.reason for error in errors] == ["CANCELLED"]
