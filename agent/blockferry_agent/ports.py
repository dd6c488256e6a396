"""What the agent's flows ask of the world: small promises, kept by adapters.

Each port has a contract suite in tests/contract that runs over every
implementation. Retry, rate limiting and fault injection wrap a port.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from typing import Protocol


class ZeroMethod(Enum):
    """A way to make a range read as zeros, cheapest first.

    A device advertises those its kernel path is known to have; any may still
    fail with UnsupportedZeroMethod, which removes it for the device's life.
    """

    PUNCH_HOLE = "punch-hole"
    """fallocate(PUNCH_HOLE|KEEP_SIZE): frees the space."""
    ZERO_RANGE = "zero-range"
    """fallocate(ZERO_RANGE): keeps the space, writes no data where it can."""
    ZERO_OUT = "zero-out"
    """ioctl BLKZEROOUT: the kernel offloads it or writes zeros itself."""
    WRITE = "write"
    """Plain writes of zeros; always there, always last."""


class UnsupportedZeroMethod(Exception):  # noqa: N818 - a signal between port and flow
    """The device turned out not to have this method; nothing was changed."""


@dataclass(frozen=True, slots=True)
class Extent:
    """A run of a device, as the storage itself describes it.

    Attributes:
        start_bytes: Inclusive.
        end_bytes: Exclusive, greater than `start_bytes`.
        hole: True when the storage promises that the run reads as zeros.
    """

    start_bytes: int
    end_bytes: int
    hole: bool


class BlockDevice(Protocol):
    """A block device or regular file: positional, complete-or-raise, no seek state.

    Reads may run in several threads at once. One writer per device.
    Every method may raise DeviceError with a `DEVICE_IO_…` reason and the
    `errno`, `path` and `offset_bytes` in its metadata, CapacityError/NO_SPACE
    when the storage is full, or UsageError/OUT_OF_RANGE beyond `size_bytes`.
    """

    @property
    def path(self) -> str:
        """What the device is called in messages."""
        ...

    @property
    def size_bytes(self) -> int:
        """Size when it was opened."""
        ...

    @property
    def block_bytes(self) -> int:
        """Logical block size: 512 or 4096 for devices, 1 for regular files."""
        ...

    @property
    def zero_methods(self) -> tuple[ZeroMethod, ...]:
        """Methods worth trying, cheapest first; ends with WRITE."""
        ...

    def read_into(self, offset_bytes: int, buffer: memoryview) -> None:
        """Fill `buffer` from `offset_bytes` on.

        Reads leave the page cache as they found it where the storage can
        (O_DIRECT), else drop what they brought in.

        Args:
            offset_bytes: At least 0.
            buffer: Writable, C-contiguous, uint8, shape (n,), n at least 1.
                Page-aligned buffers are read without a copy.
        """
        ...

    def write_at(self, offset_bytes: int, data: memoryview | bytes) -> None:
        """Write all of `data` at `offset_bytes`; durable only after `flush()`.

        Args:
            offset_bytes: A multiple of `block_bytes`.
            data: C-contiguous, uint8, shape (n,), n at least 1 and a multiple of
                `block_bytes` except at the device's end; lent for this call only.
        """
        ...

    def zero_at(self, offset_bytes: int, length_bytes: int, method: ZeroMethod) -> None:
        """Make a range read as zeros by `method`; durable only after `flush()`.

        Raises:
            UnsupportedZeroMethod: never for WRITE.
        """
        ...

    def extents(self, start_bytes: int, end_bytes: int) -> Iterator[Extent]:
        """Contiguous extents that cover [start, end) in ascending order.

        Storage that cannot tell yields one extent with `hole=False`.
        """
        ...

    def start_writeback(self, offset_bytes: int, length_bytes: int) -> None:
        """Ask the kernel to begin writing a range out; returns at once, promises nothing."""
        ...

    def flush(self) -> None:
        """Return when all completed writes would survive a power cut (fdatasync).

        May run in another thread beside the writer; covers writes that
        completed before the call.
        """
        ...

    def close(self) -> None:
        """Release the device. Idempotent."""
        ...


class Clock(Protocol):
    """Time, so that tests need not sleep."""

    def monotonic(self) -> float:
        """Seconds on a clock that never goes back."""
        ...

    def sleep(self, seconds: float) -> None:
        """Pass `seconds` of time."""
        ...
