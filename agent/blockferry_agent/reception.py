"""How a sink receives its source: attempts, channels, frames in, commit points out.

Rules:
* The attempt with the highest number is the one that counts.
* A broken or faulty stream ends its attempt, never the job: the source may come
  again from the commit point.
* After the end only the answer to the finish may be missing at the source: it
  is given again to whoever asks with the right root.
"""

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from blockferry.errors import (
    BlockferryError,
    BusyError,
    IntegrityError,
    PreconditionError,
    UnreachableError,
)
from blockferry.limits import CHUNK_BYTES, MAX_CHANNELS, WINDOW_BYTES
from blockferry.v1 import transfer_pb2
from blockferry_agent.codec import Decoder
from blockferry_agent.frames import Frame, Message
from blockferry_agent.pipeline import Closed
from blockferry_agent.ports import Clock
from blockferry_agent.session import Session
from blockferry_agent.stageclock import Stage, Stopwatch
from blockferry_agent.standing import Standing

_log = logging.getLogger(__name__)


class Reception:
    """The door of one transfer; thread-safe."""

    def __init__(
        self,
        standing: Standing,
        size_bytes: int,
        *,
        check_digests: bool,
        stage: Stage,
        clock: Clock,
    ) -> None:
        self._standing = standing
        self._size_bytes = size_bytes
        self._check_digests = check_digests
        self._stage = stage
        self._clock = clock
        self._lock = threading.Lock()
        self._connected = 0
        self._heard_at = clock.monotonic()
        self.attempts = 0
        """How often a source began."""
        self.sent_bytes = 0
        """Payload received, before compression."""
        self.wire_bytes = 0
        """Payload received, as it came."""

    def silent_seconds(self) -> float:
        """How long no source has been connected or asked; 0.0 while one is connected."""
        with self._lock:
            return 0.0 if self._connected else self._clock.monotonic() - self._heard_at

    def write_state(self) -> transfer_pb2.GetWriteStateResponse:
        """How far the medium is safe. Raises what ended the job early, if anything did."""
        self._count_in(0)
        return self.state()

    def state(self) -> transfer_pb2.GetWriteStateResponse:
        """As `write_state`, where it is not the source who asks."""
        with self._standing.lock:
            self._standing.raise_if_stopped()
            session = self._standing.session
            return transfer_pb2.GetWriteStateResponse(
                committed_bytes=self._standing.committed.offset_bytes,
                size_bytes=self._size_bytes,
                chunk_bytes=CHUNK_BYTES,
                window_bytes=WINDOW_BYTES,
                last_attempt=0 if session is None else session.attempt,
            )

    def push(
        self, hello: transfer_pb2.PushHello, messages: Iterator[Message]
    ) -> Iterator[transfer_pb2.PushResponse]:
        """Serve one channel: frames in, commit points out, until all is received.

        Args:
            hello: The channel's first message.
            messages: The rest; read in a thread of its own.

        Raises:
            BlockferryError: what ended the attempt or the job.
        """
        session = self._join(hello)
        threading.Thread(
            target=self._feed,
            args=(session, hello.channel, messages),
            name=f"sink-channel-{hello.channel}",
            daemon=True,
        ).start()
        told = self.write_state().committed_bytes
        welcome = transfer_pb2.PushWelcome(committed_bytes=told, window_bytes=WINDOW_BYTES)
        yield transfer_pb2.PushResponse(welcome=welcome)
        while (news := self._standing.await_news(session, told)) is not None:
            told = news
            yield transfer_pb2.PushResponse(
                commit_point=transfer_pb2.CommitPoint(committed_bytes=told)
            )

    def _join(self, hello: transfer_pb2.PushHello) -> Session:
        if not (1 <= hello.channels <= MAX_CHANNELS and 0 <= hello.channel < hello.channels):
            raise _bad_stream(f"is channel {hello.channel} of {hello.channels}")
        with self._standing.lock:
            self._standing.raise_if_stopped()
            session = self._standing.session
            if session is None or hello.attempt > session.attempt:
                session = self._open(hello, session)
            elif hello.attempt < session.attempt or session.error is not None:
                raise _stale(session.attempt)
            session.attach(hello.channel)
            return session

    def _open(self, hello: transfer_pb2.PushHello, older: Session | None) -> Session:
        start, committed = hello.start_bytes, self._standing.committed.offset_bytes
        on_grid = start % CHUNK_BYTES == 0 or start == self._size_bytes
        # The commit point may have moved since GetWriteState, never back. What
        # lies below it is not written again.
        if not (on_grid and 0 <= start <= committed):
            raise PreconditionError(
                "START_MISMATCH",
                f"The source starts at {start}, but {committed} is the commit point; "
                "ask GetWriteState first.",
                start_bytes=start,
                committed_bytes=committed,
            )
        if older is not None:
            older.close(_superseded(older.attempt, hello.attempt), drop=True)
        self.attempts += 1
        session = Session(
            hello.attempt,
            start_bytes=start,
            size_bytes=self._size_bytes,
            window_bytes=WINDOW_BYTES,
            check_digests=self._check_digests,
        )
        self._standing.session = session
        self._standing.news.notify_all()
        return session

    def _feed(self, session: Session, channel: int, messages: Iterator[Message]) -> None:
        """Take what one channel brings; whatever ends it early ends the attempt."""
        decoder = Decoder()
        self._count_in(1)
        try:
            for message in messages:
                self._take(session, channel, message, decoder)
            if channel == 0 and session.root is None:
                self._end(session, _broken(channel, "it ended without a finish"))
        except Closed:
            _log.debug("channel %d of attempt %d: closed", channel, session.attempt)
        except BlockferryError as error:
            self._end(session, error)
        except Exception as error:  # noqa: BLE001 - gRPC ends the iterator with a bare one
            self._end(session, _broken(channel, str(error) or type(error).__name__))
        finally:
            self._count_in(-1)

    @contextmanager
    def connected(self) -> Iterator[None]:
        """Count a source as connected, beside those whose frames are being read."""
        self._count_in(1)
        try:
            yield
        finally:
            self._count_in(-1)

    def _count_in(self, difference: int) -> None:
        with self._lock:
            self._connected += difference
            self._heard_at = self._clock.monotonic()

    def _take(self, session: Session, channel: int, message: Message, decoder: Decoder) -> None:
        if isinstance(message, Frame):
            if not self._standing.root:
                self._accept(session, message, decoder)
        elif isinstance(message, transfer_pb2.PushFinish) and channel == 0:
            session.finish(message.root_digest)
            with self._standing.lock:
                if self._standing.root:
                    self.settle(session, self._standing.root)
        else:
            raise _bad_stream(f"sent a {type(message).__name__} in the wrong place")

    def _accept(self, session: Session, frame: Frame, decoder: Decoder) -> None:
        watch = Stopwatch()
        session.accept(frame, decoder)
        self._stage.add(frame.length_bytes, watch.lap())
        if frame.payload:
            with self._lock:
                self.wire_bytes += len(frame.payload)
                self.sent_bytes += frame.length_bytes

    def settle(self, session: Session, root: bytes) -> None:
        """Compare roots and let a session end well. With the standing's lock held.

        Raises:
            IntegrityError: ROOT_MISMATCH.
        """
        if session.root != root:
            raise IntegrityError(
                "ROOT_MISMATCH",
                "Source and sink made different root digests of the same transfer: the source "
                "changed while it was read, or between two runs. Detach it and copy again.",
                sink_root=root.hex(),
                source_root=(session.root or b"").hex(),
            )
        session.succeeded = True
        self._standing.news.notify_all()

    def _end(self, session: Session, error: BlockferryError) -> None:
        if session.error is None and not session.succeeded:
            _log.warning("attempt %d: %s", session.attempt, error)
        session.close(error, drop=False)
        with self._standing.lock:
            self._standing.news.notify_all()


def _superseded(older: int, newer: int) -> BusyError:
    return BusyError(
        "SUPERSEDED", f"Attempt {newer} took the place of attempt {older}.", attempt=newer
    )


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
