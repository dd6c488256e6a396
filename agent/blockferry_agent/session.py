"""One attempt of a source to push a transfer, as the sink sees it.

Several channels feed a session; it gives one stream of items in ascending order.
"""

import threading
from dataclasses import dataclass
from typing import Final

from blockferry.errors import BlockferryError, BusyError, IntegrityError
from blockferry.limits import CHUNK_BYTES, DIGEST_BYTES
from blockferry_agent.chunk import digest, is_whole_chunks
from blockferry_agent.codec import Decoder, Encoding
from blockferry_agent.frames import Frame
from blockferry_agent.pipeline import ClosableQueue
from blockferry_agent.sequence import ReorderWindow

_QUEUED_ITEMS: Final = 64
"""More than a window of full chunks: only zero runs ever wait here."""


@dataclass(frozen=True, slots=True)
class Item:
    """A decoded frame.

    Attributes:
        offset_bytes: A multiple of CHUNK_BYTES.
        length_bytes: Of one chunk, or of a zero run in whole chunks.
        content: The chunk; None for a zero run.
        digest: Of the chunk (32 bytes); empty for a zero run.
    """

    offset_bytes: int
    length_bytes: int
    content: memoryview | bytes | None
    digest: bytes

    @property
    def end_bytes(self) -> int:
        """First byte after it."""
        return self.offset_bytes + self.length_bytes


class Session:
    """Thread-safe: each channel calls `accept` from its own thread."""

    def __init__(
        self,
        attempt: int,
        *,
        start_bytes: int,
        size_bytes: int,
        window_bytes: int,
        check_digests: bool,
    ) -> None:
        self.attempt: Final = attempt
        self.items: Final = ClosableQueue[Item](_QUEUED_ITEMS)
        self._size_bytes = size_bytes
        self._check_digests = check_digests
        self._lock = threading.Lock()
        self._window = ReorderWindow[Item](start_bytes, size_bytes, window_bytes)
        self._attached: set[int] = set()
        self._root: bytes | None = None
        self._error: BlockferryError | None = None
        self.succeeded = False
        """True once everything is committed and both roots agree."""

    @property
    def error(self) -> BlockferryError | None:
        """Why it ended, unless it succeeded."""
        return self._error

    @property
    def root(self) -> bytes | None:
        """The source's root, once it has said that nothing more comes."""
        return self._root

    def attach(self, channel: int) -> None:
        """Count a channel in, once."""
        with self._lock:
            if channel in self._attached:
                raise BusyError(
                    "ATTEMPT_STALE",
                    f"Channel {channel} of attempt {self.attempt} is connected already; "
                    "connect with a higher attempt.",
                    attempt=self.attempt,
                )
            self._attached.add(channel)

    def accept(self, frame: Frame, decoder: Decoder) -> None:
        """Decode, check and put in order; waits while the writer is behind.

        Raises:
            IntegrityError: the frame is not what it claims, or not where it may be.
            Closed: the session ended.
        """
        item = self._decode(frame, decoder)
        payload_bytes = 0 if item.content is None else item.length_bytes
        with self._lock:
            ready = self._window.push(
                item.offset_bytes, item.length_bytes, item, payload_bytes=payload_bytes
            )
            # Under the lock: another channel's later items must not overtake.
            for next_item in ready:
                self.items.put(next_item)
            self._end_if_complete()

    def finish(self, root_digest: bytes) -> None:
        """Take the source's word that nothing more comes, and its root."""
        with self._lock:
            self._root = root_digest
            self._end_if_complete()

    def _end_if_complete(self) -> None:
        if self._root is not None and self._window.complete:
            self.items.close()

    def close(self, error: BlockferryError, *, drop: bool) -> None:
        """End it early; with `drop`, what was not written yet is forgotten."""
        # Not under the lock: a channel may hold it while it waits in `items.put`.
        if self._error is None and not self.succeeded:
            self._error = error
        self.items.close(error if drop else None)

    def _decode(self, frame: Frame, decoder: Decoder) -> Item:
        offset, length = frame.offset_bytes, frame.length_bytes
        if not is_whole_chunks(offset, length, self._size_bytes):
            raise IntegrityError(
                "FRAME_OUT_OF_RANGE",
                f"The frame of {length} bytes at {offset} is not on the chunk grid of a transfer "
                f"of {self._size_bytes} bytes; both agents must run the same version.",
                offset_bytes=offset,
                length_bytes=length,
            )
        content = decoder.decode(frame.encoding, frame.payload, length)
        if frame.encoding == Encoding.ZERO:
            return Item(offset, length, None, b"")
        if len(frame.digest) != DIGEST_BYTES or (
            self._check_digests and digest(content) != frame.digest
        ):
            raise IntegrityError(
                "DIGEST_MISMATCH",
                f"The chunk at {offset} arrived with a digest that is not its own: "
                "faulty memory or a defect at the source. Nothing of it was written.",
                offset_bytes=offset,
                length_bytes=min(length, CHUNK_BYTES),
            )
        return Item(offset, length, content, frame.digest)
