"""The copy job: read the device and push it to the sink, however often it takes.

Rules:
* Payload never runs further ahead of the commit point than the sink's window.
* An attempt that breaks is followed by another from the sink's commit point;
  digests below it come from the manifest, or are read again where it is missing.
* The job gives up when the commit point stood still for `patience_seconds`.
"""

import logging
import threading
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
from blockferry.limits import CHUNK_BYTES
from blockferry.v1 import agent_pb2, transfer_pb2
from blockferry_agent.attempt import Attempt
from blockferry_agent.codec import Compression, LevelTuner
from blockferry_agent.link import Dial, Link
from blockferry_agent.manifest import Manifest
from blockferry_agent.pacing import Backoff, RateLimiter
from blockferry_agent.ports import BlockDevice, Clock
from blockferry_agent.position import START, position_at
from blockferry_agent.pull import Dock
from blockferry_agent.push import Sink, is_transient
from blockferry_agent.stageclock import StageClock
from blockferry_agent.survey import STAGES, Survey
from blockferry_agent.window import SendWindow

_log = logging.getLogger(__name__)

_SIGN_OF_LIFE_SECONDS: Final = 60.0
"""A source that only reads asks the sink this often, which gives up silent ones."""

_DIAL_SECONDS: Final = 15.0
"""Longest wait for a sink that dials us, before it counts as a broken try."""

_TLS_TRIES: Final = 5
"""A sink that is killed during a handshake looks like one that refuses us."""


@dataclass(frozen=True, slots=True)
class CopyPlan:
    """What is to be copied, and how.

    Attributes:
        transfer_id: Of the migration.
        size_bytes: Of the device.
        sink_addresses: `host:port`, tried in turn; empty when the sink dials.
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


class CopyFlow:
    """One transfer at its source. `run` in one thread, the rest in any."""

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
        self.dock = Dock()
        """Where the sink is waited for, when it is the one to dial."""
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._stopped: CancelledError | None = None
        self._limit = plan.limit_bytes_per_second
        self._limiter = RateLimiter(self._limit, clock)
        self._window = SendWindow(0, START, clock)
        self._paused = False
        self._running: Attempt | Survey | None = None
        self._attempt: Attempt | None = None
        self._begun = 0
        self._sent_before = self._wire_before = 0
        self._root = b""
        self._tries = 0
        self._number = 0
        self._resumed_from: int | None = None

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
            heard, known = self._window.heard_bytes, self._manifest.count
            try:
                self._try_once()
                return
            except BlockferryError as error:
                self._raise_if_stopped()
                refusals = refusals + 1 if error.reason == "TLS_REFUSED" else 0
                if not is_transient(error) or refusals >= _TLS_TRIES:
                    raise
                now = self._clock.monotonic()
                moved = self._window.heard_bytes > heard or self._manifest.count > known
                if moved or self._limiter.waiting or self._paused:
                    progress_at = now
                    backoff.reset()
                if now - progress_at > self._plan.patience_seconds:
                    raise _given_up(error, now - progress_at) from error
                _log.warning("try %d: %s", self._tries, error)
            self._stop.wait(backoff.next_seconds())
            self._raise_if_stopped()

    def _raise_if_stopped(self) -> None:
        if self._stopped is not None:
            raise self._stopped

    def _try_once(self) -> None:
        sink = self._connect()
        try:
            state = sink.write_state(self._plan.transfer_id)
            # An earlier process of ours, or of our predecessor, came that far.
            self._number = max(self._number, state.last_attempt) + 1
            self._check_agreement(state)
            self._fill_manifest(sink, state.committed_bytes)
            self._push(sink, state)
        finally:
            sink.close()

    def _connect(self) -> Link:
        """A sink for one attempt: dialled now, or one that has dialled us."""
        addresses = self._plan.sink_addresses
        self._tries += 1
        if not addresses:
            return self.dock.take(_DIAL_SECONDS, self._stop)
        address = addresses[(self._tries - 1) % len(addresses)]
        return Sink(self._dial, address, self._plan.channels)

    def _check_agreement(self, state: transfer_pb2.GetWriteStateResponse) -> None:
        if (state.size_bytes, state.chunk_bytes) != (self._plan.size_bytes, CHUNK_BYTES):
            raise PreconditionError(
                "TRANSFER_MISMATCH",
                f"The sink expects {state.size_bytes} bytes in chunks of {state.chunk_bytes}, "
                f"the source has {self._plan.size_bytes} in chunks of {CHUNK_BYTES}.",
                sink_size_bytes=state.size_bytes,
                source_size_bytes=self._plan.size_bytes,
            )

    def _fill_manifest(self, sink: Link, committed_bytes: int) -> None:
        """Read again what the sink has and this manifest lost; usually nothing."""
        known = min(self._manifest.count * CHUNK_BYTES, self._plan.size_bytes)
        if known >= committed_bytes:
            return
        _log.info("reading [%d, %d) again for its digests", known, committed_bytes)
        survey = Survey(
            self._device,
            known,
            committed_bytes,
            threads=self._plan.workers,
            clock=self._stages,
        )
        self._enter(survey)
        told_at = self._clock.monotonic()
        for piece, digests, _ in survey:
            self._manifest.put(piece.offset_bytes // CHUNK_BYTES, digests)
            if self._clock.monotonic() - told_at > _SIGN_OF_LIFE_SECONDS:
                told_at = self._clock.monotonic()
                sink.write_state(self._plan.transfer_id)

    def _push(self, sink: Link, state: transfer_pb2.GetWriteStateResponse) -> None:
        plan, start = self._plan, state.committed_bytes
        if self._resumed_from is None:
            self._resumed_from = start
        window = SendWindow(state.window_bytes, position_at(self._manifest, start), self._clock)
        with self._lock:
            limiter = RateLimiter(self._limit, self._clock)
            self._window, self._limiter = window, limiter
            window.set_paused(self._paused)
        attempt = Attempt(
            device=self._device,
            manifest=self._manifest,
            start_bytes=start,
            size_bytes=plan.size_bytes,
            window=window,
            limiter=limiter,
            tuner=self._tuner,
            workers=plan.workers,
            clock=self._stages,
        )
        self._enter(attempt)
        hello = transfer_pb2.PushHello(
            transfer_id=plan.transfer_id, attempt=self._number, start_bytes=start
        )
        with self._lock:
            self._attempt = attempt
            self._begun += 1
        try:
            attempt.run(sink, hello, plan.stall_seconds)
            window.advance(plan.size_bytes)
        finally:
            with self._lock:
                self._attempt = None
                self._sent_before += attempt.sent_bytes
                self._wire_before += attempt.wire_bytes
                self._root = attempt.root

    def _enter(self, running: Attempt | Survey) -> None:
        """Have `cancel` reach what runs next, also when it came before."""
        with self._lock:
            self._running = running
            stopped = self._stopped
        if stopped is not None:
            running.fail(stopped)

    # How it is steered and seen.

    def cancel(self, reason: CancelledError) -> None:
        """Stop in order; what the sink committed stays."""
        with self._lock:
            self._stopped = self._stopped or reason
            running = self._running
        self._stop.set()
        if running is not None:
            running.fail(reason)

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
        with self._lock:
            window, attempt, progress = self._window, self._attempt, job.progress
            progress.sent_bytes = self._sent_before + (attempt.sent_bytes if attempt else 0)
            progress.wire_bytes = self._wire_before + (attempt.wire_bytes if attempt else 0)
            progress.reconnects = max(0, self._begun - 1)
        committed = window.committed
        progress.size_bytes = self._plan.size_bytes
        progress.committed_bytes = window.heard_bytes
        progress.data_bytes = committed.data_bytes
        progress.zero_bytes = committed.zero_bytes
        progress.resumed_from_bytes = self._resumed_from or 0
        job.root_digest = self._root
        self._stages.report(job)


def _given_up(error: BlockferryError, seconds: float) -> BlockferryError:
    cls = DeadlineError if isinstance(error, DeadlineError) else UnreachableError
    return cls(
        "SINK_LOST",
        f"No progress for {seconds:.0f} s; last: {error.message} What is committed stays; "
        "start the jobs again to go on.",
        cause=error.reason,
    )
