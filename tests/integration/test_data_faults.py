"""The fault matrix of the data: every operation fails once, at its first, middle and last call.

    call     side    then
    read     source  both jobs end; the next run goes on from the commit point
    read     sink    likewise: of what it takes for zero, or proves
    write    sink    likewise
    zero     sink    likewise
    flush    sink    likewise; nothing after the last commit point counts
    send     source  the connection is reset; the same run connects again and goes on
    receive  sink    likewise
    ack      sink    likewise

Always the end is byte-equal and proven. The twin without a fault counts the calls.
That of clouds and agents is tests/torture/matrix.py.
"""

from pathlib import Path
from typing import Literal, get_args

import pytest

from blockferry.errors import DeviceError
from blockferry.limits import CHUNK_BYTES
from blockferry_agent.memory_device import Call, MemoryDevice
from tests.layouts import content, make_memory
from tests.transfer import Outcome, Transfer

LAYOUT = "DR0-D0RR--0DRDD0" * 3
TAIL = 4097
WHEN = ("first", "middle", "last")
DEVICE_CALLS = [("source", "read"), *(("sink", call) for call in get_args(Call))]
WIRE_CALLS = ("send", "receive", "ack")

When = Literal["first", "middle", "last"]


def stage(place: Path) -> Transfer:
    size = (len(LAYOUT) - 1) * CHUNK_BYTES + TAIL
    sink = MemoryDevice(size, garbage_seed=3, block_bytes=1)
    return Transfer(make_memory(LAYOUT, tail_bytes=TAIL), sink, place, patience_seconds=20.0)


def assert_equal(transfer: Transfer, outcome: Outcome) -> None:
    outcome.raise_any()
    assert isinstance(transfer.sink, MemoryDevice)
    assert transfer.sink.content == content(LAYOUT, tail_bytes=TAIL)
    assert outcome.sink.verified
    assert outcome.sink.root_digest == outcome.source.root_digest


@pytest.fixture(scope="module")
def twin(tmp_path_factory: pytest.TempPathFactory) -> Transfer:
    transfer = stage(tmp_path_factory.mktemp("twin"))
    assert_equal(transfer, transfer.run())
    assert transfer.wire.lost == 0
    return transfer


def nth(times: int, when: When) -> int:
    assert times > 0
    return {"first": 1, "middle": (times + 1) // 2, "last": times}[when]


@pytest.mark.parametrize("when", WHEN)
@pytest.mark.parametrize(("side", "call"), DEVICE_CALLS)
def test_a_device_that_fails_once(
    tmp_path: Path, twin: Transfer, side: str, call: Call, when: When
) -> None:
    transfer = stage(tmp_path)
    device, counted = getattr(transfer, side), getattr(twin, side)
    device.fail(call, nth(counted.calls[call], when))
    failed = transfer.run()
    error = failed.source_error if side == "source" else failed.sink_error
    if when == "last" and error is None:
        # How many flushes there are is a matter of time: this run had fewer than the twin.
        assert (call, device.calls[call] < counted.calls[call]) == ("flush", True)
        return
    assert isinstance(error, DeviceError), error
    done = transfer.run()
    assert_equal(transfer, done)
    told = done.sink.progress
    assert told.resumed_from_bytes == failed.sink.progress.committed_bytes
    assert told.data_bytes + told.zero_bytes == device.size_bytes


@pytest.mark.parametrize("when", WHEN)
@pytest.mark.parametrize("call", WIRE_CALLS)
def test_a_message_that_is_lost(tmp_path: Path, twin: Transfer, call: str, when: When) -> None:
    transfer = stage(tmp_path)
    transfer.wire.fail(call, nth(twin.wire.calls[call], when))
    done = transfer.run()
    assert_equal(transfer, done)
    if transfer.wire.lost == 0:
        # How many answers there are is a matter of time, as is what compression makes.
        assert when == "last"
