"""One attempt of a source to bring a sink from its commit point to the end.

    worker threads: read -> zero or data -> digest -> encode   (any order)
    sender thread: manifest, window, limit, channel            (ascending)
    answer threads, one a channel: commit points               (any order)

The first error of any of them ends the attempt.
"""

import time
from typing import Final

from blockferry.errors import DeadlineError
from blockferry.limits import CHUNK_BYTES
from blockferry.v1 import transfer_pb2
from blockferry_agent.chunk import chunk_count
from blockferry_agent.codec import LevelTuner
from blockferry_agent.layout import Piece, pieces
from blockferry_agent.link import Link
from blockferry_agent.manifest import Manifest
from blockferry_agent.pacing import RateLimiter
from blockferry_agent.packing import Packer, Parcel, merge_zeros, zero_frame
from blockferry_agent.pipeline import Closed, Ordered, StageGroup
from blockferry_agent.ports import BlockDevice
from blockferry_agent.stageclock import StageClock, Stopwatch
from blockferry_agent.window import SendWindow

_WATCH_SECONDS: Final = 0.25


class Attempt:
    """Runs once, in one thread; may be failed from others."""

    def __init__(
        self,
        *,
        device: BlockDevice,
        manifest: Manifest,
        start_bytes: int,
        size_bytes: int,
        window: SendWindow,
        limiter: RateLimiter,
        tuner: LevelTuner,
        workers: int,
        clock: StageClock,
    ) -> None:
        """Prepare to send [start, size), both on the chunk grid or the end."""
        self._device = device
        self._manifest = manifest
        self._window = window
        self._limiter = limiter
        self._tuner = tuner
        self._workers = workers
        self._clock = clock
        self._parcels: Ordered[Piece, Parcel] = Ordered(
            pieces(device, start_bytes, size_bytes), depth=workers * 4
        )
        self._group = StageGroup("source")
        self._group.closes(self._parcels, window, limiter)
        self.sent_bytes = 0
        """Payload before compression sent so far; read by other threads."""
        self.wire_bytes = 0
        """Payload after compression sent so far."""
        self.root = b""
        """Root digest of all that was read, once it is known."""

    def fail(self, error: BaseException) -> None:
        """End it; `run` raises `error` unless there was an earlier one."""
        self._group.fail(error)

    def run(self, sink: Link, hello: transfer_pb2.PushHello, stall_seconds: float) -> None:
        """Send everything; returns when the sink has ended all streams well.

        Args:
            sink: Connected; closed by the caller.
            hello: Names transfer, attempt and start.
            stall_seconds: Silence of the sink, with frames in flight, that ends it.

        Raises:
            BlockferryError: the first thing that went wrong.
        """
        try:
            sink.open(hello, self._group, self._window.advance)
        except Closed:
            # The first channel was refused before the last was open.
            self._group.join()
            raise
        for number in range(self._workers):
            self._group.spawn(f"worker-{number}", self._work)
        self._group.spawn("sender", lambda: self._send_all(sink))
        while not self._group.wait(_WATCH_SECONDS):
            self._check_stall(stall_seconds)
        self._group.join()

    def _check_stall(self, stall_seconds: float) -> None:
        silent = self._window.silent_seconds()
        if silent > stall_seconds:
            self.fail(
                DeadlineError(
                    "SINK_STALLED",
                    f"The sink is connected but has confirmed nothing for {silent:.0f} s.",
                    silent_seconds=int(silent),
                )
            )

    def _work(self) -> None:
        self._parcels.run(Packer(self._device, self._tuner, self._clock).pack)

    def _send_all(self, sink: Link) -> None:
        for parcel in merge_zeros(self._parcels):
            first_chunk = parcel.piece.offset_bytes // CHUNK_BYTES
            if parcel.is_data:
                self._manifest.put(first_chunk, parcel.digest)
                self._send_data(sink, parcel)
            else:
                self._manifest.put_zeros(first_chunk, chunk_count(parcel.piece.length_bytes))
                self._window.reserve(0, parcel.piece.length_bytes)
                sink.send(zero_frame(parcel.piece))
        self.root = self._manifest.root()
        sink.finish(self.root)

    def _send_data(self, sink: Link, parcel: Parcel) -> None:
        watch = Stopwatch()
        length = parcel.piece.length_bytes
        # Before it counts as in flight: the sink does not owe what waits for the limit.
        self._limiter.take(len(parcel.message))
        self._window.reserve(length, 0)
        self._clock["send"].waited(watch.lap().seconds)
        idle = sink.send(parcel.message)
        self._tuner.observe(length, time.perf_counter(), queued=not idle)
        self.sent_bytes += length
        self.wire_bytes += parcel.payload_bytes
        self._clock["send"].add(length, watch.lap())
