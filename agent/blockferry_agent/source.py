"""The copy job: read the device and push it to the sink.

    worker threads: read -> zero or data -> digest -> encode   (any order)
    sender thread: manifest, window, limit, channel            (ascending)

Rules:
* A worker does all steps of a chunk: no hand-over, one buffer a thread, and as
  many reads in flight as there are workers.
* Payload never runs further ahead of the commit point than the sink's window.
* An attempt that breaks is followed by another from the sink's commit point;
  digests below it come from the manifest, or are read again where it is missing.
* The job gives up when the commit point stood still for `patience_seconds`.
"""

import logging
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from blockferry.errors import (
    BlockferryError,
    CancelledError,
    DeadlineError,
    InternalError,
    PreconditionError,
    UnreachableError,
)
from blockferry.limits import CHUNK_BYTES, MIB
from blockferry.v1 import agent_pb2, transfer_pb2
from blockferry_agent.chunk import chunk_count, digest, is_zero
from blockferry_agent.codec import Compression, Encoder, Encoding, LevelTuner
from blockferry_agent.frames import pack_frame
from blockferry_agent.layout import Piece, pieces
from blockferry_agent.manifest import Manifest
from blockferry_agent.pacing import Backoff, RateLimiter
from blockferry_agent.pipeline import Ordered, StageGroup
from blockferry_agent.ports import BlockDevice, Clock
from blockferry_agent.position import START, position_at
from blockferry_agent.push import Dial, Sink, is_transient
from blockferry_agent.stageclock import StageClock
from blockferry_agent.survey import STAGES, Survey, page_aligned_buffer
from blockferry_agent.window import SendWindow

_log = logging.getLogger(__name__)

_FOUND_RUN_BYTES: Final = 16 * MIB
"""Zero chunks found by reading are merged up to this: few frames, and the sink
works on one while the next is read. Holes go as they are."""

_WATCH_SECONDS: Final = 0.25
_TLS_TRIES: Final = 5


@dataclass(frozen=True, slots=True)
class CopyPlan:
    """What is to be copied, and how.

    Attributes:
        transfer_id: Of the migration.
        size_bytes: Of the device.
        sink_addresses: `host:port`, tried in turn, at least one.
        compression: Of chunks.
        channels: gRPC channels, in [1, 16].
        limit_bytes_per_second: On the wire; 0 is unlimited.
        workers: Threads that read, digest and encode.
        stall_seconds: Silence of a connected sink that ends an attempt.
        patience_seconds: Without progress the job gives up.
    """

    transfer_id: str
    size_bytes: int
    sink_addresses: tuple[str, ...]
    compression: Compression
    channels: int
    limit_bytes_per_second: int
    workers: int
    stall_seconds: float = 45.0
    patience_seconds: float = 120.0


@dataclass(frozen=True, slots=True)
class Parcel:
    """A piece that a worker is done with.

    Attributes:
        piece: Where it lies.
        digest: Of the chunk; empty for zeros.
        message: The frame, serialized; empty for zeros.
        payload_bytes: After compression.
    """

    piece: Piece
    digest: bytes
    message: bytes
    payload_bytes: int


class CopyFlow:
    """One transfer at its source. `run` in one thread."""

    def __init__(
        self, plan: CopyPlan, device: BlockDevice, manifest: Manifest, dial: Dial, clock: Clock
    ) -> None:
        self._plan = plan
        self._device = device
        self._manifest = manifest
        self._dial = dial
        self._clock = clock
        self._stages = StageClock(*STAGES, "encode", "send")
        self._tuner = LevelTuner(plan.compression)
        self._limit = plan.limit_bytes_per_second
        self._limiter = RateLimiter(self._limit, clock)
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._stopped: CancelledError | None = None
        self._group: StageGroup | None = None
        self._survey: Survey | None = None
        self._window = SendWindow(0, START, clock)
        self._paused = False
        self._attempt = 0
        self._reconnects = 0
        self._resumed_from: int | None = None
        self._sent_bytes = self._wire_bytes = 0
        self._root = b""

    def run(self) -> None:
        """Copy everything; returns when the sink has it all and agrees on the root.

        Raises:
            BlockferryError: what ended the job.
        """
        try:
            self._persist()
        except BlockferryError:
            raise
        except Exception as error:
            _log.exception("copy %s", self._plan.transfer_id)
            raise InternalError("COPY_BROKEN", f"The copy job broke: {error!r}") from error

    def _persist(self) -> None:
        backoff = Backoff()
        progress_at, refusals = self._clock.monotonic(), 0
        while True:
            before = self._window.heard_bytes
            try:
                self._try_once()
                return
            except BlockferryError as error:
                refusals = refusals + 1 if error.reason == "TLS_REFUSED" else 0
                if self._stopped is not None:
                    raise self._stopped from None
                if not self._may_repeat(error) or refusals >= _TLS_TRIES:
                    raise
                now = self._clock.monotonic()
                if self._window.heard_bytes > before or self._limiter.waiting or self._paused:
                    progress_at = now
                    backoff.reset()
                if now - progress_at > self._plan.patience_seconds:
                    raise self._given_up(error, now - progress_at) from error
                _log.warning("attempt %d: %s", self._attempt, error)
            self._reconnects += 1
            if self._stop.wait(backoff.next_seconds()):
                assert self._stopped is not None
                raise self._stopped

    def _may_repeat(self, error: BlockferryError) -> bool:
        if error.reason == "ATTEMPT_STALE":
            self._attempt = max(self._attempt, int(error.metadata.get("attempt", "0")))
        return is_transient(error) or isinstance(error, CancelledError)

    def _given_up(self, error: BlockferryError, seconds: float) -> BlockferryError:
        cls = DeadlineError if isinstance(error, DeadlineError) else UnreachableError
        return cls(
            "SINK_LOST",
            f"No progress for {seconds:.0f} s; last: {error.message} What is committed stays; "
            "start the jobs again to go on.",
            cause=error.reason,
        )

    def _try_once(self) -> None:
        addresses = self._plan.sink_addresses
        sink = Sink(self._dial, addresses[self._attempt % len(addresses)], self._plan.channels)
        self._attempt += 1
        try:
            state = sink.write_state(self._plan.transfer_id)
            self._check_agreement(state)
            self._fill_manifest(state.committed_bytes)
            self._push(sink, state)
        finally:
            sink.close()

    def _check_agreement(self, state: transfer_pb2.GetWriteStateResponse) -> None:
        if (state.size_bytes, state.chunk_bytes) != (self._plan.size_bytes, CHUNK_BYTES):
            raise PreconditionError(
                "TRANSFER_MISMATCH",
                f"The sink expects {state.size_bytes} bytes in chunks of {state.chunk_bytes}, "
                f"the source has {self._plan.size_bytes} in chunks of {CHUNK_BYTES}.",
                sink_size_bytes=state.size_bytes,
                source_size_bytes=self._plan.size_bytes,
            )

    def _fill_manifest(self, committed_bytes: int) -> None:
        """Read again what the sink has and this manifest lost; usually nothing."""
        known = min(self._manifest.count * CHUNK_BYTES, self._plan.size_bytes)
        if known >= committed_bytes:
            return
        workers = self._plan.workers
        survey = Survey(self._device, known, committed_bytes, threads=workers, clock=self._stages)
        self._survey = survey
        if self._stopped is not None:
            survey.fail(self._stopped)
        for piece, digests, _ in survey:
            self._manifest.put(piece.offset_bytes // CHUNK_BYTES, digests)

    def _push(self, sink: Sink, state: transfer_pb2.GetWriteStateResponse) -> None:
        start = state.committed_bytes
        if self._resumed_from is None:
            self._resumed_from = start
        window = SendWindow(state.window_bytes, position_at(self._manifest, start), self._clock)
        parcels: Ordered[Piece, Parcel] = Ordered(
            pieces(self._device, start, self._plan.size_bytes), depth=self._plan.workers * 4
        )
        group = StageGroup("source")
        with self._lock:
            limiter = RateLimiter(self._limit, self._clock)
            self._window, self._limiter, self._group = window, limiter, group
            window.set_paused(self._paused)
        group.closes(parcels, window, limiter)
        if self._stopped is not None:
            group.fail(self._stopped)
        hello = transfer_pb2.PushHello(
            transfer_id=self._plan.transfer_id, attempt=self._attempt, start_bytes=start
        )
        sink.open(hello, group, window.advance)
        for number in range(self._plan.workers):
            group.spawn(f"worker-{number}", lambda: self._work(parcels))
        group.spawn("sender", lambda: self._send_all(sink, window, parcels))
        while not group.wait(_WATCH_SECONDS):
            self._check_stall(group, window)
        # Before joining: a failed group's calls end only when they are cancelled.
        if group.error is not None:
            sink.close()
        group.join()
        window.advance(self._plan.size_bytes)

    def _check_stall(self, group: StageGroup, window: SendWindow) -> None:
        silent = window.silent_seconds()
        if silent > self._plan.stall_seconds:
            group.fail(
                DeadlineError(
                    "SINK_STALLED",
                    f"The sink is connected but has confirmed nothing for {silent:.0f} s.",
                    silent_seconds=int(silent),
                )
            )

    def _work(self, parcels: Ordered[Piece, Parcel]) -> None:
        buffer, encoder = page_aligned_buffer(), Encoder(self._tuner)
        parcels.run(lambda piece: self._pack(piece, buffer, encoder))

    def _pack(self, piece: Piece, buffer: memoryview, encoder: Encoder) -> Parcel:
        if piece.hole:
            return Parcel(piece, b"", b"", 0)
        length, stages = piece.length_bytes, self._stages
        started = time.perf_counter()
        view = buffer[:length]
        self._device.read_into(piece.offset_bytes, view)
        read = time.perf_counter()
        stages["read"].add(length, read - started)
        if is_zero(view):
            stages["digest"].add(length, time.perf_counter() - read)
            return Parcel(piece, b"", b"", 0)
        chunk_digest = digest(view)
        digested = time.perf_counter()
        encoding, payload = encoder.encode(view)
        message = pack_frame(piece.offset_bytes, length, encoding, payload, chunk_digest)
        stages["digest"].add(length, digested - read)
        stages["encode"].add(length, time.perf_counter() - digested)
        return Parcel(piece, chunk_digest, message, len(payload))

    def _send_all(self, sink: Sink, window: SendWindow, parcels: Ordered[Piece, Parcel]) -> None:
        for parcel in _merge_zeros(parcels):
            piece = parcel.piece
            first = piece.offset_bytes // CHUNK_BYTES
            if parcel.message:
                self._manifest.put(first, parcel.digest)
                self._send_data(sink, window, parcel)
            else:
                self._manifest.put_zeros(first, chunk_count(piece.length_bytes))
                window.reserve(0, piece.length_bytes)
                sink.send(
                    pack_frame(piece.offset_bytes, piece.length_bytes, Encoding.ZERO, b"", b"")
                )
        root = self._manifest.root()
        sink.finish(root)
        self._root = root

    def _send_data(self, sink: Sink, window: SendWindow, parcel: Parcel) -> None:
        started = time.perf_counter()
        length = parcel.piece.length_bytes
        window.reserve(length, 0)
        self._limiter.take(len(parcel.message))
        ready = time.perf_counter()
        idle = sink.send(parcel.message)
        self._tuner.observe(idle)
        self._sent_bytes += length
        self._wire_bytes += parcel.payload_bytes
        self._stages["send"].add(length, time.perf_counter() - ready)
        self._stages["send"].waited(ready - started)

    # How it is steered and seen.

    def cancel(self, reason: CancelledError) -> None:
        """Stop in order; what the sink committed stays."""
        with self._lock:
            self._stopped = self._stopped or reason
            group, survey = self._group, self._survey
        self._stop.set()
        if survey is not None:
            survey.fail(reason)
        if group is not None:
            group.fail(reason)

    def set_paused(self, paused: bool) -> None:
        """Hold at the next frame, or go on."""
        with self._lock:
            self._paused = paused
            self._window.set_paused(paused)

    def set_limit(self, limit_bytes_per_second: int) -> None:
        """Change the bandwidth limit; 0 is unlimited."""
        with self._lock:
            self._limit = limit_bytes_per_second
            self._limiter.set_rate(limit_bytes_per_second)

    def report(self, job: agent_pb2.Job) -> None:
        """Fill in progress and results."""
        window, progress = self._window, job.progress
        committed = window.committed
        progress.size_bytes = self._plan.size_bytes
        progress.committed_bytes = window.heard_bytes
        progress.data_bytes = committed.data_bytes
        progress.zero_bytes = committed.zero_bytes
        progress.resumed_from_bytes = self._resumed_from or 0
        progress.sent_bytes = self._sent_bytes
        progress.wire_bytes = self._wire_bytes
        progress.reconnects = self._reconnects
        job.root_digest = self._root
        job.stage_summary = self._stages.summary()


def _merge_zeros(parcels: Ordered[Piece, Parcel]) -> Iterator[Parcel]:
    """Join neighbouring zero chunks that were found by reading."""
    run: Piece | None = None
    for parcel in parcels:
        piece = parcel.piece
        if not parcel.message and not piece.hole:
            length = piece.length_bytes + (0 if run is None else run.length_bytes)
            start = piece.offset_bytes if run is None else run.offset_bytes
            run = Piece(start, length, hole=False)
            if length < _FOUND_RUN_BYTES:
                continue
            parcel = Parcel(run, b"", b"", 0)  # noqa: PLW2901 - it takes the chunk's place
            run = None
        elif run is not None:
            yield Parcel(run, b"", b"", 0)
            run = None
        yield parcel
    if run is not None:
        yield Parcel(run, b"", b"", 0)
