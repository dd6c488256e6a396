"""Devices and their faults through a whole transfer: a clear error, and an end that is byte-equal.

The n-th call of each kind fails in test_data_faults.py.
"""

import errno
from pathlib import Path
from typing import Literal

import pytest

from blockferry.errors import BlockferryError, CapacityError, DeviceError, IntegrityError
from blockferry.limits import CHUNK_BYTES, MIB
from blockferry_agent.memory_device import MemoryDevice
from blockferry_agent.ports import ZeroMethod
from blockferry_agent.refusal import refused
from blockferry_agent.server import SystemClock
from blockferry_agent.write_probe import WriteProbeFlow
from tests.layouts import LETTERS, content, make_memory, size_bytes
from tests.transfer import Transfer

LAYOUT = "DR0-D0RR--0DRDD0" * 3
TAIL = 4097


def sink_for(layout: str, tail: int, *, extra: int = 0, volatile: bool = False) -> MemoryDevice:
    size = (len(layout) - 1) * CHUNK_BYTES + tail if layout else 0
    return MemoryDevice(size + extra, garbage_seed=3, block_bytes=1, volatile=volatile)


@pytest.mark.parametrize(
    ("layout", "tail"),
    [
        ("", CHUNK_BYTES),
        ("D", 1),
        ("0", 1),
        ("-", 511),
        (LAYOUT, TAIL),
        ("-" * 20, CHUNK_BYTES),
        ("R" * 20, CHUNK_BYTES),
    ],
    ids=["empty", "one-byte", "one-zero", "hole", "mixed", "holes", "noise"],
)
@pytest.mark.parametrize("channels", [1, 4])
def test_devices_are_equal_afterwards(
    tmp_path: Path, layout: str, tail: int, channels: int
) -> None:
    sink = sink_for(layout, tail, extra=2 * MIB)
    before = sink.content
    source = make_memory(layout, tail_bytes=tail)
    outcome = Transfer(source, sink, tmp_path, channels=channels).run()
    outcome.raise_any()
    wanted = content(layout, tail_bytes=tail)
    assert sink.content == wanted + before[len(wanted) :]
    assert outcome.sink.verified
    assert outcome.sink.root_digest == outcome.source.root_digest


@pytest.mark.parametrize("letter", ["-", "0"], ids=["sparse", "zeros"])
@pytest.mark.parametrize("tells_holes", [False, True], ids=["thick", "thin"])
def test_zeros_arrive_where_the_writes_were_measured(
    tmp_path: Path, letter: str, tells_holes: bool
) -> None:
    layout = letter * 40
    source = make_memory(layout, tail_bytes=TAIL)
    sink = MemoryDevice(source.size_bytes, block_bytes=1, tells_holes=tells_holes)
    WriteProbeFlow(sink, source.size_bytes, 5.0, SystemClock()).run()
    assert any(sink.content[:MIB]), "the new volume is not zero any more"
    Transfer(source, sink, tmp_path).run().raise_any()
    assert sink.content == bytes(source.size_bytes)


def test_a_full_sink_says_so_on_both_sides(tmp_path: Path) -> None:
    source, sink = make_memory("R" * 12), sink_for("R" * 12, CHUNK_BYTES)
    sink.fail("write", 5, errno.ENOSPC)
    outcome = Transfer(source, sink, tmp_path).run()
    for error in (outcome.source_error, outcome.sink_error):
        assert isinstance(error, CapacityError)
        assert error.reason == "NO_SPACE"


class Worn(MemoryDevice):
    """A disk that is bad from an offset on, until it is mended: what is to change there fails.

    With a cache it takes such writes, loses them, and says so at the next flush and never
    again, as the page cache does after a failed write-back.
    """

    def __init__(self, bad_from_bytes: int, *, cached: bool = False) -> None:
        super().__init__(size_bytes(LAYOUT, TAIL), garbage_seed=3, block_bytes=1)
        self.bad_from_bytes, self.cached, self.lost = bad_from_bytes, cached, 0

    def mend(self) -> None:
        self.bad_from_bytes = self.size_bytes

    def write_at(self, offset_bytes: int, data: memoryview | bytes) -> None:
        if not self._loses("write", offset_bytes, len(data)):
            super().write_at(offset_bytes, data)

    def zero_at(self, offset_bytes: int, length_bytes: int, method: ZeroMethod) -> None:
        if not self._loses("zero", offset_bytes, length_bytes):
            super().zero_at(offset_bytes, length_bytes, method)

    def flush(self) -> None:
        lost, self.lost = self.lost, 0
        if lost:
            raise refused("flush", self.path, OSError(errno.EIO, ""))
        super().flush()

    def _loses(self, call: Literal["write", "zero"], offset_bytes: int, length_bytes: int) -> bool:
        if offset_bytes + length_bytes <= self.bad_from_bytes:
            return False
        if not self.cached:
            raise refused(call, self.path, OSError(errno.EIO, ""), offset_bytes)
        self.lost += length_bytes
        return True


BAD = [pytest.param(LAYOUT.index(letter, 16), id=letter) for letter in LETTERS]


@pytest.mark.parametrize("bad", BAD)
@pytest.mark.parametrize("cached", [False, True], ids=["told-at-once", "told-by-a-flush"])
def test_a_sink_that_stays_broken_from_an_offset_on(tmp_path: Path, bad: int, cached: bool) -> None:
    sink = Worn(bad * CHUNK_BYTES, cached=cached)
    transfer = Transfer(make_memory(LAYOUT, tail_bytes=TAIL), sink, tmp_path)
    committed = 0
    for _ in range(2):
        failed = transfer.run()
        for error in (failed.sink_error, failed.source_error):
            assert isinstance(error, DeviceError)
            assert error.meaning.exit_code == 20
            assert sink.path in str(error)
            assert cached or str(error.metadata["offset_bytes"]) == str(sink.bad_from_bytes)
        assert failed.sink.progress.resumed_from_bytes == committed
        for side in (failed.sink, failed.source):
            assert committed <= side.progress.committed_bytes <= sink.bad_from_bytes
        committed = failed.sink.progress.committed_bytes
    sink.mend()
    done = transfer.run()
    done.raise_any()
    assert done.sink.progress.resumed_from_bytes == committed
    assert sink.content == content(LAYOUT, tail_bytes=TAIL)
    assert done.sink.verified


@pytest.mark.parametrize("cached", [False, True], ids=["told-at-once", "told-by-a-flush"])
def test_a_sink_that_is_not_broken_where_it_is_written_to(tmp_path: Path, cached: bool) -> None:
    sink = Worn(size_bytes(LAYOUT, TAIL), cached=cached)
    Transfer(make_memory(LAYOUT, tail_bytes=TAIL), sink, tmp_path).run().raise_any()
    assert sink.content == content(LAYOUT, tail_bytes=TAIL)


@pytest.mark.parametrize("nth", [1, 12, 24])
def test_a_power_cut_costs_only_what_was_not_durable(tmp_path: Path, nth: int) -> None:
    source, sink = make_memory(LAYOUT), sink_for(LAYOUT, CHUNK_BYTES, volatile=True)
    sink.fail("write", nth)
    transfer = Transfer(source, sink, tmp_path)
    assert transfer.run().sink_error is not None
    sink.power_cut()
    transfer.boot_id = "after the power cut"
    done = transfer.run()
    done.raise_any()
    assert sink.content == content(LAYOUT)


def test_a_resumed_sink_takes_no_earlier_reading_on_trust(tmp_path: Path) -> None:
    source, sink = make_memory("R" * 40), sink_for("R" * 40, CHUNK_BYTES)
    sink.fail("write", 39)
    transfer = Transfer(source, sink, tmp_path)
    committed = transfer.run().sink.progress.committed_bytes
    assert committed > 2 * MIB
    sink.write_at(MIB + 3, b"spoiled while nobody looked")
    outcome = transfer.run()
    assert isinstance(outcome.sink_error, IntegrityError)
    assert outcome.sink.progress.resumed_from_bytes == committed
    (named,) = outcome.sink.differing
    assert (named.start_bytes, named.end_bytes) == (MIB, 2 * MIB)


@pytest.mark.parametrize("flaw", ["lies", "unsupported"])
def test_a_device_that_cannot_zero_is_zeroed_by_writing(tmp_path: Path, flaw: str) -> None:
    source, sink = make_memory("0-0D0"), sink_for("0-0D0", CHUNK_BYTES)
    setattr(sink, flaw, frozenset(ZeroMethod) - {ZeroMethod.WRITE})
    Transfer(source, sink, tmp_path).run().raise_any()
    assert sink.content == content("0-0D0")


def test_a_sink_that_loses_a_write_is_found_by_the_proof(tmp_path: Path) -> None:
    class Loses(MemoryDevice):
        def write_at(self, offset_bytes: int, data: memoryview | bytes) -> None:
            if offset_bytes != 3 * MIB:
                super().write_at(offset_bytes, data)

    source, sink = make_memory("R" * 6), Loses(6 * MIB, garbage_seed=3)
    outcome = Transfer(source, sink, tmp_path).run()
    assert outcome.source_error is None
    assert isinstance(outcome.sink_error, IntegrityError)
    assert outcome.sink_error.metadata["ranges"] == f"[{3 * MIB},{4 * MIB})"
    assert not outcome.sink.verified


def test_a_source_that_reads_differently_each_time_is_found(tmp_path: Path) -> None:
    source, sink = make_memory("R" * 40), sink_for("R" * 40, CHUNK_BYTES)
    sink.fail("write", 39)
    transfer = Transfer(source, sink, tmp_path)
    failed = transfer.run()
    assert failed.sink.progress.committed_bytes > 0
    (tmp_path / "source").unlink()
    source.write_at(0, b"changed")
    outcome = transfer.run()
    for error in (outcome.source_error, outcome.sink_error):
        assert isinstance(error, BlockferryError)
        assert error.reason == "ROOT_MISMATCH"
