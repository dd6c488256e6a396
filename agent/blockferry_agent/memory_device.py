"""A BlockDevice in memory: for tests, for benchmarks, and as the port's reference.

What real devices do wrong it can do on request: fail at the n-th call, lack a
method of zeroing, claim to have zeroed, lose at a power cut what was not flushed.
"""

from __future__ import annotations

import errno
import random
import threading
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, Literal

from blockferry.errors import UsageError
from blockferry_agent.ports import Extent, UnsupportedZeroMethod, ZeroMethod
from blockferry_agent.refusal import refused

Call = Literal["read", "write", "zero", "flush"]


@dataclass(frozen=True, slots=True)
class _Undo:
    offset_bytes: int
    content: bytes


class MemoryDevice:
    """A device of zeros, or of garbage, in a bytearray; thread-safe.

    Holes are what was punched, or never written on a device that began as zeros;
    they are told in blocks of 4096 bytes, and only if `tells_holes`.

    Attributes:
        calls: How often each operation was asked for.
        lies: Methods that report success and leave the range as it was.
        unsupported: Methods that this device does not have, though it says so.
    """

    HOLE_BYTES: Final = 4096

    def __init__(
        self,
        size_bytes: int,
        *,
        garbage_seed: int | None = None,
        block_bytes: int = 512,
        tells_holes: bool = False,
        volatile: bool = False,
        path: str = "memory",
    ) -> None:
        """Make a device.

        Args:
            size_bytes: At least 0.
            garbage_seed: Fills the device with bytes made from it; zeros if None.
            block_bytes: What `block_bytes` says; 1 for what is like a file.
            tells_holes: Whether `extents` knows holes.
            volatile: Keep what `power_cut` needs; costs memory until `flush`.
            path: The name in messages.
        """
        self._path = path
        self._block = block_bytes
        self._content = bytearray(size_bytes)
        if garbage_seed is not None:
            self._content[:] = random.Random(garbage_seed).randbytes(size_bytes)  # noqa: S311
        self._holes = bytearray([garbage_seed is None]) * -(-size_bytes // self.HOLE_BYTES)
        self._tells_holes = tells_holes
        self._volatile = volatile
        self._undo: list[_Undo] = []
        self._faults: dict[Call, tuple[int, int]] = {}
        self._lock = threading.RLock()
        self.calls: Counter[Call] = Counter()
        self.lies: frozenset[ZeroMethod] = frozenset()
        self.unsupported: frozenset[ZeroMethod] = frozenset()

    @property
    def path(self) -> str:
        """The name it was given."""
        return self._path

    @property
    def size_bytes(self) -> int:
        """Its size."""
        return len(self._content)

    @property
    def block_bytes(self) -> int:
        """The block size it was given."""
        return self._block

    @property
    def zero_methods(self) -> tuple[ZeroMethod, ...]:
        """All methods."""
        return tuple(ZeroMethod)

    def read_into(self, offset_bytes: int, buffer: memoryview) -> None:
        """See BlockDevice.read_into."""
        with self._lock:
            self._check_range(offset_bytes, len(buffer))
            self._count("read", offset_bytes)
            buffer[:] = self._content[offset_bytes : offset_bytes + len(buffer)]

    def write_at(self, offset_bytes: int, data: memoryview | bytes) -> None:
        """See BlockDevice.write_at."""
        with self._lock:
            self._check_range(offset_bytes, len(data))
            self._count("write", offset_bytes)
            self._replace(offset_bytes, data)

    def zero_at(self, offset_bytes: int, length_bytes: int, method: ZeroMethod) -> None:
        """See BlockDevice.zero_at."""
        with self._lock:
            self._check_range(offset_bytes, length_bytes)
            self._count("zero", offset_bytes)
            if method in self.unsupported:
                raise UnsupportedZeroMethod(method)
            if method in self.lies:
                return
            self._replace(offset_bytes, bytes(length_bytes))
            if method is ZeroMethod.PUNCH_HOLE:
                self._mark_hole(offset_bytes, offset_bytes + length_bytes)

    def extents(self, start_bytes: int, end_bytes: int) -> Iterator[Extent]:
        """See BlockDevice.extents."""
        if not 0 <= start_bytes <= end_bytes <= self.size_bytes:
            raise self._out_of_range(start_bytes, end_bytes - start_bytes)
        return self._extents(start_bytes, end_bytes)

    def start_writeback(self, offset_bytes: int, length_bytes: int) -> None:
        """See BlockDevice.start_writeback; does nothing."""

    def flush(self) -> None:
        """See BlockDevice.flush."""
        with self._lock:
            self._count("flush", None)
            self._undo.clear()

    def close(self) -> None:
        """See BlockDevice.close; the content stays, for the test to look at."""

    @property
    def content(self) -> bytes:
        """A copy of what the device holds now."""
        with self._lock:
            return bytes(self._content)

    def fail(self, call: Call, nth: int, number: int = errno.EIO) -> None:
        """Let the n-th `call` from now (1 is the next), and only it, fail.

        Args:
            call: read, write, zero or flush.
            nth: At least 1.
            number: The errno it fails with.
        """
        with self._lock:
            self._faults[call] = (self.calls[call] + nth, number)

    def power_cut(self) -> None:
        """Go back to what the last `flush` made durable; needs `volatile=True`."""
        with self._lock:
            for undo in reversed(self._undo):
                end = undo.offset_bytes + len(undo.content)
                self._content[undo.offset_bytes : end] = undo.content
                self._unmark_hole(undo.offset_bytes, end)
            self._undo.clear()

    def _count(self, call: Call, offset_bytes: int | None) -> None:
        self.calls[call] += 1
        nth, number = self._faults.get(call, (0, 0))
        if self.calls[call] == nth:
            raise refused(call, self._path, OSError(number, ""), offset_bytes)

    def _replace(self, offset_bytes: int, data: memoryview | bytes) -> None:
        end_bytes = offset_bytes + len(data)
        if self._volatile:
            self._undo.append(_Undo(offset_bytes, bytes(self._content[offset_bytes:end_bytes])))
        self._content[offset_bytes:end_bytes] = data
        self._unmark_hole(offset_bytes, end_bytes)

    def _mark_hole(self, start_bytes: int, end_bytes: int) -> None:
        """Blocks that lie wholly in the range become holes."""
        first = -(-start_bytes // self.HOLE_BYTES)
        last = len(self._holes) if end_bytes == self.size_bytes else end_bytes // self.HOLE_BYTES
        if first < last:
            self._holes[first:last] = b"\1" * (last - first)

    def _unmark_hole(self, start_bytes: int, end_bytes: int) -> None:
        """Blocks that the range touches are holes no more."""
        first, last = start_bytes // self.HOLE_BYTES, -(-end_bytes // self.HOLE_BYTES)
        self._holes[first:last] = bytes(last - first)

    def _extents(self, start_bytes: int, end_bytes: int) -> Iterator[Extent]:
        place = start_bytes
        while place < end_bytes:
            block = place // self.HOLE_BYTES
            hole = self._tells_holes and self._holes[block] == 1
            other = self._holes.find(0 if hole else 1, block) if self._tells_holes else -1
            end = end_bytes if other < 0 else min(other * self.HOLE_BYTES, end_bytes)
            yield Extent(place, end, hole)
            place = end

    def _check_range(self, offset_bytes: int, length_bytes: int) -> None:
        if length_bytes < 1 or offset_bytes < 0 or offset_bytes + length_bytes > self.size_bytes:
            raise self._out_of_range(offset_bytes, length_bytes)

    def _out_of_range(self, offset_bytes: int, length_bytes: int) -> UsageError:
        return UsageError(
            "OUT_OF_RANGE",
            f"{length_bytes} bytes at {offset_bytes} are not within {self._path}, "
            f"which has {self.size_bytes}.",
            path=self._path,
            offset_bytes=offset_bytes,
            length_bytes=length_bytes,
            size_bytes=self.size_bytes,
        )
