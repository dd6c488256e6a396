"""Restores the order of frames that arrive over several channels.

Rules:
* The frames of one attempt cover [start, end) exactly once. A frame that lies
  before `next_bytes` or on a held one is FRAME_OVERLAP, one that leaves
  [start, end) is FRAME_OUT_OF_RANGE.
* What is held is bounded twice: by `window_bytes` of payload and, since zero
  frames have none, by HELD_ITEMS_MAX frames. More is FRAME_BEYOND_WINDOW, the
  fault of a source that ran ahead of what it was allowed.
* The frame that is next is never held, so it is never beyond the window.
"""

from bisect import bisect_left, insort
from typing import Final, Generic, TypeVar

from blockferry.errors import IntegrityError

T = TypeVar("T")

HELD_ITEMS_MAX: Final = 4096
"""Frames held at most. A source keeps fewer frames than this, zero runs
included, ahead of the commit point; 48 full chunks are the payload window."""


class ReorderWindow(Generic[T]):
    """Takes frames in any order and gives them back in ascending order.

    Not thread-safe: the owner holds a lock around each call.
    """

    def __init__(self, start_bytes: int, end_bytes: int, window_bytes: int) -> None:
        """Expect [start_bytes, end_bytes), holding at most `window_bytes` of payload."""
        self._next = start_bytes
        self._end = end_bytes
        self._window = window_bytes
        self._pending = 0
        self._offsets: list[int] = []
        self._held: dict[int, tuple[int, int, T]] = {}

    @property
    def next_bytes(self) -> int:
        """Offset of the first byte not given back yet."""
        return self._next

    @property
    def pending_bytes(self) -> int:
        """Payload bytes held, at most `window_bytes`."""
        return self._pending

    @property
    def pending_items(self) -> int:
        """Frames held, at most HELD_ITEMS_MAX."""
        return len(self._offsets)

    @property
    def complete(self) -> bool:
        """True once all of [start, end) was given back."""
        return self._next == self._end

    def push(
        self, offset_bytes: int, length_bytes: int, item: T, *, payload_bytes: int | None = None
    ) -> list[T]:
        """Add a frame and return those that are in order now, perhaps none.

        Args:
            offset_bytes: Where the frame starts.
            length_bytes: How much of the device it stands for, at least 1.
            item: What is given back.
            payload_bytes: What it counts against the window: 0 for a ZERO
                frame; `length_bytes` unless given.

        Raises:
            IntegrityError: FRAME_OUT_OF_RANGE, FRAME_OVERLAP or
                FRAME_BEYOND_WINDOW; the frame was not taken.
        """
        self._check_place(offset_bytes, length_bytes)
        payload = length_bytes if payload_bytes is None else payload_bytes
        if offset_bytes > self._next:
            self._hold(offset_bytes, length_bytes, payload, item)
            return []
        self._next += length_bytes
        return [item, *self._release()]

    def _release(self) -> list[T]:
        ready: list[T] = []
        for offset in self._offsets:
            if offset != self._next:
                break
            length, payload, item = self._held.pop(offset)
            self._next += length
            self._pending -= payload
            ready.append(item)
        del self._offsets[: len(ready)]
        return ready

    def _hold(self, offset_bytes: int, length_bytes: int, payload: int, item: T) -> None:
        if self._pending + payload > self._window or len(self._offsets) >= HELD_ITEMS_MAX:
            raise IntegrityError(
                "FRAME_BEYOND_WINDOW",
                f"The frame at {offset_bytes} is beyond the window: {self._pending} bytes in "
                f"{len(self._offsets)} frames already wait for the one at {self._next}. "
                "The source sent more than the sink allows.",
                offset_bytes=offset_bytes,
                next_bytes=self._next,
                pending_bytes=self._pending,
                window_bytes=self._window,
            )
        insort(self._offsets, offset_bytes)
        self._held[offset_bytes] = (length_bytes, payload, item)
        self._pending += payload

    def _check_place(self, offset_bytes: int, length_bytes: int) -> None:
        end_bytes = offset_bytes + length_bytes
        if length_bytes < 1 or offset_bytes < 0 or end_bytes > self._end:
            raise self._fault("FRAME_OUT_OF_RANGE", offset_bytes, length_bytes, "leaves")
        if offset_bytes < self._next:
            raise self._fault("FRAME_OVERLAP", offset_bytes, length_bytes, "repeats part of")
        place = bisect_left(self._offsets, offset_bytes)
        if place < len(self._offsets) and self._offsets[place] < end_bytes:
            raise self._fault("FRAME_OVERLAP", offset_bytes, length_bytes, "repeats part of")
        if place > 0:
            before = self._offsets[place - 1]
            if before + self._held[before][0] > offset_bytes:
                raise self._fault("FRAME_OVERLAP", offset_bytes, length_bytes, "repeats part of")

    def _fault(
        self, reason: str, offset_bytes: int, length_bytes: int, verb: str
    ) -> IntegrityError:
        return IntegrityError(
            reason,
            f"The frame of {length_bytes} bytes at {offset_bytes} {verb} the transfer, of which "
            f"[{self._next}, {self._end}) is to come. The source is at fault; start it again.",
            offset_bytes=offset_bytes,
            length_bytes=length_bytes,
            next_bytes=self._next,
            end_bytes=self._end,
        )
