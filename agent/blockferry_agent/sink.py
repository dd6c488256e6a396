"""The receive job: accept a transfer, write it in order, prove it.

    channel threads: decode, check -> Session -> writer thread: device, manifest
    committer thread: flush -> ledger -> commit point -> told on every channel

Rules:
* One writer, ascending offsets, always.
* The commit point moves after a flush, at least every 16 MiB or 200 ms.
* A broken or faulty stream ends its attempt, never the job: the source may come
  again. Only the device, a wrong root, a failed proof or silence end the job.
* What was committed stays: an attempt that starts below is not written again.
"""

import logging
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from blockferry.errors import (
    BlockferryError,
    BusyError,
    CancelledError,
    DeadlineError,
    IntegrityError,
    InternalError,
    PreconditionError,
    UnreachableError,
)
from blockferry.limits import CHUNK_BYTES, MAX_CHANNELS, MIB, WINDOW_BYTES
from blockferry.v1 import agent_pb2, transfer_pb2
from blockferry_agent.chunk import chunk_count
from blockferry_agent.codec import Decoder
from blockferry_agent.frames import Frame, Message
from blockferry_agent.layout import pieces
from blockferry_agent.ledger import Ledger
from blockferry_agent.pipeline import Closed, StageGroup
from blockferry_agent.ports import BlockDevice, Clock
from blockferry_agent.position import Position
from blockferry_agent.proof import Proof
from blockferry_agent.session import Item, Session
from blockferry_agent.stageclock import StageClock
from blockferry_agent.survey import STAGES
from blockferry_agent.writer import DeviceWriter

_log = logging.getLogger(__name__)

_COMMIT_BYTES: Final = 16 * MIB
_COMMIT_SECONDS: Final = 0.2
_WATCH_SECONDS: Final = 0.5


@dataclass(frozen=True, slots=True)
class ReceivePlan:
    """What is to be received.

    Attributes:
        transfer_id: Of the migration.
        size_bytes: Of the source; the device is at least as large.
        check_digests: Whether each chunk's digest is checked as it arrives.
        read_back: Whether the medium is read again at the end.
        dead_seconds: Silence after which the job gives up.
        threads: For reading back.
    """

    transfer_id: str
    size_bytes: int
    check_digests: bool
    read_back: bool
    dead_seconds: float
    threads: int


class ReceiveFlow:
    """One transfer at its sink. `run` in one thread, `push` in one a channel."""

    def __init__(
        self, plan: ReceivePlan, device: BlockDevice, ledger: Ledger, clock: Clock
    ) -> None:
        self._plan = plan
        self._device = device
        self._ledger = ledger
        self._clock = clock
        self._stages = StageClock("receive", "write", "zero", "flush", *STAGES)
        self._group = StageGroup("sink")
        self._group.closes(self)
        self._lock = threading.Lock()
        self._news = threading.Condition(self._lock)
        self._work = threading.Condition(self._lock)
        self._written = self._committed = ledger.start
        self._session: Session | None = None
        self._connected = 0
        self._stopped: BlockferryError | None = None
        self._root = b""
        self._verified = False
        self._proof: Proof | None = None
        self._heard_at = clock.monotonic()
        self._sent_bytes = self._wire_bytes = self._attempts = 0

    # What the source asks for.

    def write_state(self) -> transfer_pb2.GetWriteStateResponse:
        """How far the medium is safe. Raises what ended the job, if anything did."""
        with self._lock:
            self._raise_if_stopped()
            return transfer_pb2.GetWriteStateResponse(
                committed_bytes=self._committed.offset_bytes,
                size_bytes=self._plan.size_bytes,
                chunk_bytes=CHUNK_BYTES,
                window_bytes=WINDOW_BYTES,
            )

    def push(
        self, hello: transfer_pb2.PushHello, messages: Iterator[Message]
    ) -> Iterator[transfer_pb2.PushResponse]:
        """Serve one channel: frames in, commit points out, until all is received.

        Args:
            hello: The channel's first message.
            messages: The rest.

        Raises:
            BlockferryError: what ended the attempt or the job.
        """
        session = self._join(hello)
        feeder = threading.Thread(
            target=self._feed,
            args=(session, hello.channel, messages),
            name=f"sink-channel-{hello.channel}",
            daemon=True,
        )
        feeder.start()
        told = self.write_state().committed_bytes
        welcome = transfer_pb2.PushWelcome(committed_bytes=told, window_bytes=WINDOW_BYTES)
        yield transfer_pb2.PushResponse(welcome=welcome)
        while (news := self._await_news(session, told)) is not None:
            told = news
            yield transfer_pb2.PushResponse(
                commit_point=transfer_pb2.CommitPoint(committed_bytes=told)
            )

    def _await_news(self, session: Session, told: int) -> int | None:
        """The commit point once it is not `told`; None when the session succeeded."""
        with self._lock:
            while True:
                if session.error is not None:
                    raise session.error
                if self._committed.offset_bytes != told:
                    return self._committed.offset_bytes
                if session.succeeded:
                    return None
                self._news.wait()

    def _join(self, hello: transfer_pb2.PushHello) -> Session:
        if not (1 <= hello.channels <= MAX_CHANNELS and 0 <= hello.channel < hello.channels):
            raise _bad_stream(f"is channel {hello.channel} of {hello.channels}")
        with self._lock:
            self._raise_if_stopped()
            session = self._session
            if session is None or hello.attempt > session.attempt:
                session = self._open(hello)
            elif hello.attempt < session.attempt or session.error is not None:
                raise _stale(session.attempt)
            session.attach(hello.channel)
            return session

    def _open(self, hello: transfer_pb2.PushHello) -> Session:
        start = hello.start_bytes
        on_grid = start % CHUNK_BYTES == 0 or start == self._plan.size_bytes
        # It may have moved since GetWriteState, never back.
        if not (on_grid and 0 <= start <= self._committed.offset_bytes):
            raise PreconditionError(
                "START_MISMATCH",
                f"The source starts at {start}, but {self._committed.offset_bytes} is the commit "
                "point; ask GetWriteState first.",
                start_bytes=start,
                committed_bytes=self._committed.offset_bytes,
            )
        if self._session is not None:
            self._session.close(
                BusyError(
                    "SUPERSEDED",
                    f"Attempt {hello.attempt} took the place of {self._session.attempt}.",
                    attempt=hello.attempt,
                ),
                drop=True,
            )
        self._attempts += 1
        self._session = Session(
            hello.attempt,
            start_bytes=start,
            size_bytes=self._plan.size_bytes,
            window_bytes=WINDOW_BYTES,
            check_digests=self._plan.check_digests,
        )
        self._news.notify_all()
        return self._session

    def _feed(self, session: Session, channel: int, messages: Iterator[Message]) -> None:
        """Take what one channel brings; whatever ends it early ends the attempt."""
        decoder = Decoder()
        with self._lock:
            self._connected += 1
        try:
            for message in messages:
                started = time.perf_counter()
                self._take(session, channel, message, decoder)
                if isinstance(message, Frame):
                    self._count(message, time.perf_counter() - started)
            if channel == 0 and session.root is None:
                self._end(session, _broken(channel, "it ended without a finish"))
        except Closed:
            _log.debug("channel %d of attempt %d: closed", channel, session.attempt)
        except BlockferryError as error:
            self._end(session, error)
        except Exception as error:  # noqa: BLE001 - gRPC ends the iterator with a bare one
            self._end(session, _broken(channel, str(error) or type(error).__name__))
        finally:
            with self._lock:
                self._connected -= 1
                self._heard_at = self._clock.monotonic()

    def _take(self, session: Session, channel: int, message: Message, decoder: Decoder) -> None:
        if isinstance(message, Frame):
            # After the end only the answer to the finish is missing at the source.
            if not self._root:
                session.accept(message, decoder)
        elif isinstance(message, transfer_pb2.PushFinish) and channel == 0:
            session.finish(message.root_digest)
            with self._lock:
                if self._root:
                    self._settle(session, self._root)
        else:
            raise _bad_stream(f"sent a {type(message).__name__} in the wrong place")

    def _count(self, frame: Frame, busy_seconds: float) -> None:
        self._stages["receive"].add(frame.length_bytes, busy_seconds)
        with self._lock:
            self._wire_bytes += len(frame.payload)
            if frame.payload:
                self._sent_bytes += frame.length_bytes

    def _end(self, session: Session, error: BlockferryError) -> None:
        if session.error is None and not session.succeeded:
            _log.warning("attempt %d of %s: %s", session.attempt, self._plan.transfer_id, error)
        session.close(error, drop=False)
        with self._lock:
            self._news.notify_all()

    @property
    def committed_chunks(self) -> int:
        """Chunks below the commit point."""
        return chunk_count(self._committed.offset_bytes)

    # What the job does.

    def run(self) -> None:
        """Receive everything and prove it. Raises what ended the job early."""
        try:
            self._receive()
            if self._plan.read_back:
                self._prove()
        except BlockferryError as error:
            self.close(error)
            raise
        except Exception as error:
            _log.exception("receive %s", self._plan.transfer_id)
            failure = InternalError("RECEIVE_BROKEN", f"The receive job broke: {error!r}")
            self.close(failure)
            raise failure from error

    def _receive(self) -> None:
        self._group.spawn("writer", self._write)
        self._group.spawn("committer", self._commit)
        while not self._group.wait(_WATCH_SECONDS):
            self._check_silence()
        self._group.join()

    def _prove(self) -> None:
        with self._lock:
            self._raise_if_stopped()
            self._proof = Proof(
                self._device,
                self._ledger.manifest,
                self._plan.size_bytes,
                threads=self._plan.threads,
                clock=self._stages,
            )
        self._root = self._proof.run()
        self._verified = True

    def _check_silence(self) -> None:
        with self._lock:
            silent = 0.0 if self._connected else self._clock.monotonic() - self._heard_at
        if silent > self._plan.dead_seconds:
            self._group.fail(
                DeadlineError(
                    "SOURCE_SILENT",
                    f"No source has been connected for {silent:.0f} s. What is committed stays; "
                    "start both jobs again to go on.",
                    silent_seconds=int(silent),
                )
            )

    def _write(self) -> None:
        writer = DeviceWriter(self._device)
        session: Session | None = None
        while True:
            session = self._next_session(session)
            for item in session.items:
                self._apply(writer, item)
            if session.root is not None and session.error is None and self._complete(session):
                return

    def _next_session(self, last: Session | None) -> Session:
        """Wait for a newer session; go back to the commit point for it."""
        with self._lock:
            while self._session is None or self._session is last:
                if self._stopped is not None:
                    raise Closed
                self._news.wait()
            self._written = self._committed
            return self._session

    def _apply(self, writer: DeviceWriter, item: Item) -> None:
        manifest = self._ledger.manifest
        with self._lock:
            if self._written.offset_bytes < self._committed.offset_bytes:
                self._written = self._committed
            done = self._written.offset_bytes
        if item.end_bytes <= done:
            return
        started = time.perf_counter()
        if item.content is not None:
            writer.write(item.offset_bytes, item.content)
            manifest.put(item.offset_bytes // CHUNK_BYTES, item.digest)
            self._stages["write"].add(item.length_bytes, time.perf_counter() - started)
            self._move(item.length_bytes, 0)
            return
        for piece in pieces(self._device, max(item.offset_bytes, done), item.end_bytes):
            if self._stopped is not None:
                raise Closed
            started = time.perf_counter()
            writer.zero(piece)
            chunks = -(-piece.length_bytes // CHUNK_BYTES)
            manifest.put_zeros(piece.offset_bytes // CHUNK_BYTES, chunks)
            self._stages["zero"].add(piece.length_bytes, time.perf_counter() - started)
            self._move(0, piece.length_bytes)

    def _move(self, data_bytes: int, zero_bytes: int) -> None:
        with self._lock:
            self._written = self._written.plus(data_bytes, zero_bytes)
            if self._written.offset_bytes - self._committed.offset_bytes >= _COMMIT_BYTES:
                self._work.notify()

    def _complete(self, session: Session) -> bool:
        """Everything is written: commit it, compare roots, release the source.

        False when a newer session came meanwhile, which must be served as well.
        """
        with self._lock:
            self._work.notify()
            while self._committed.offset_bytes < self._plan.size_bytes:
                if self._stopped is not None:
                    raise Closed
                self._news.wait()
        root = self._ledger.manifest.root()
        with self._lock:
            if self._session is not session:
                return False
            self._settle(session, root)
            self._root = root
            self._work.notify_all()
            return True

    def _settle(self, session: Session, root: bytes) -> None:
        """Compare roots and let a session end well. With the lock held."""
        if session.root != root:
            raise IntegrityError(
                "ROOT_MISMATCH",
                "Source and sink made different root digests of the same transfer: the source "
                "changed while it was read, or between two runs. Detach it and copy again.",
                sink_root=root.hex(),
                source_root=(session.root or b"").hex(),
            )
        session.succeeded = True
        self._news.notify_all()

    def _commit(self) -> None:
        """Move the commit point; once more when the job stops."""
        while (target := self._commit_due()) is not None:
            started = time.perf_counter()
            advanced = target.offset_bytes - self._committed.offset_bytes
            self._device.flush()
            final = target.offset_bytes == self._plan.size_bytes or self._stopped is not None
            self._ledger.commit(target, durable=final)
            self._stages["flush"].add(advanced, time.perf_counter() - started)
            with self._lock:
                self._committed = target
                self._heard_at = self._clock.monotonic()
                self._news.notify_all()

    def _commit_due(self) -> Position | None:
        """What to commit now; None when the job is over and nothing is left."""
        with self._lock:
            due_at = self._clock.monotonic() + _COMMIT_SECONDS
            while True:
                ahead = self._written.offset_bytes - self._committed.offset_bytes
                over = self._stopped is not None or bool(self._root)
                all_written = self._written.offset_bytes == self._plan.size_bytes
                if ahead > 0 and (over or all_written or ahead >= _COMMIT_BYTES):
                    return self._written
                if over:
                    return None
                left = due_at - self._clock.monotonic()
                if left <= 0:
                    if ahead > 0:
                        return self._written
                    due_at = self._clock.monotonic() + _COMMIT_SECONDS
                    left = _COMMIT_SECONDS
                self._work.wait(left)

    # How the job ends.

    def cancel(self, reason: CancelledError) -> None:
        """Stop in order: the write in hand is finished, flushed and written down."""
        self._group.fail(reason)
        proof = self._proof
        if proof is not None:
            proof.fail(reason)

    def close(self, error: BaseException | None = None) -> None:
        """End sessions and stages for `error`; called by the group's first failure."""
        if not isinstance(error, BlockferryError):
            error = InternalError("RECEIVE_BROKEN", f"The receive job broke: {error!r}")
        with self._lock:
            self._stopped = self._stopped or error
            session = self._session
            self._news.notify_all()
            self._work.notify_all()
        if session is not None:
            session.close(error, drop=True)
            with self._lock:
                self._news.notify_all()

    def _raise_if_stopped(self) -> None:
        if self._stopped is not None:
            raise self._stopped

    def report(self, job: agent_pb2.Job) -> None:
        """Fill in progress and results."""
        with self._lock:
            committed, proof = self._committed, self._proof
            progress = job.progress
            progress.committed_bytes = committed.offset_bytes
            progress.data_bytes = committed.data_bytes
            progress.zero_bytes = committed.zero_bytes
            progress.resumed_from_bytes = self._ledger.start.offset_bytes
            progress.sent_bytes = self._sent_bytes
            progress.wire_bytes = self._wire_bytes
            progress.reconnects = max(0, self._attempts - 1)
        progress.size_bytes = self._plan.size_bytes
        progress.verified_bytes = 0 if proof is None else proof.verified_bytes
        job.root_digest = self._root
        job.verified = self._verified
        job.stage_summary = self._stages.summary()


def _stale(attempt: int) -> BusyError:
    return BusyError(
        "ATTEMPT_STALE",
        f"Attempt {attempt} came before; connect with a higher one.",
        attempt=attempt,
    )


def _bad_stream(what: str) -> IntegrityError:
    return IntegrityError(
        "STREAM_INVALID", f"A stream {what}; both agents must run the same version."
    )


def _broken(channel: int, why: str) -> UnreachableError:
    return UnreachableError(
        "STREAM_BROKEN", f"Channel {channel} from the source broke: {why}.", channel=channel
    )
