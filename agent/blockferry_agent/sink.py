"""The receive job: accept a transfer, write it in order, prove it.

    channel threads (reception): decode, check -> session
    writer thread (here): session -> device, manifest, in ascending order, always
    committer thread: flush -> ledger -> commit point -> told on every channel
    prover thread: below the commit point, device -> digests, against the manifest

Only the device, a wrong root, a failed proof, silence or cancelling end the job.
"""

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from blockferry.errors import BlockferryError, CancelledError, DeadlineError, InternalError
from blockferry.limits import CHUNK_BYTES
from blockferry.v1 import agent_pb2, transfer_pb2
from blockferry_agent.chunk import chunk_count
from blockferry_agent.committer import COMMIT_BYTES, Committer
from blockferry_agent.following import Follower
from blockferry_agent.frames import Message
from blockferry_agent.hail import Hail, HailPlan
from blockferry_agent.layout import pieces
from blockferry_agent.ledger import Ledger
from blockferry_agent.link import Dial
from blockferry_agent.pipeline import Closed, StageGroup
from blockferry_agent.ports import BlockDevice, Clock
from blockferry_agent.proof import Proof
from blockferry_agent.reception import Reception
from blockferry_agent.session import Item, Session
from blockferry_agent.stageclock import StageClock, Stopwatch
from blockferry_agent.standing import Standing
from blockferry_agent.survey import STAGES
from blockferry_agent.writer import DeviceWriter

_log = logging.getLogger(__name__)

_WATCH_SECONDS: Final = 0.5


@dataclass(frozen=True, slots=True)
class ReceivePlan:
    """What is to be received.

    Attributes:
        transfer_id: Of the migration.
        size_bytes: Of the source; the device is at least as large.
        check_digests: Whether each chunk's digest is checked as it arrives.
        read_back: Whether the medium is read again.
        dead_seconds: Silence after which the job gives up.
        threads: For reading back.
        source_addresses: `host:port`, when the sink is the one to dial; else empty.
        channels: gRPC channels when it does, in [1, 16].
    """

    transfer_id: str
    size_bytes: int
    check_digests: bool
    read_back: bool
    dead_seconds: float
    threads: int
    source_addresses: tuple[str, ...] = ()
    channels: int = 1


class ReceiveFlow:
    """One transfer at its sink. `run` in one thread, `push` in one a channel."""

    def __init__(
        self,
        plan: ReceivePlan,
        device: BlockDevice,
        ledger: Ledger,
        clock: Clock,
        dial: Dial | None = None,
    ) -> None:
        """Prepare; `dial` is needed when the plan has the sink dial."""
        self._plan = plan
        self._device = device
        self._ledger = ledger
        self._stages = StageClock("receive", "write", "zero", "flush", *STAGES)
        self._standing = Standing(ledger.start)
        self._reception = Reception(
            self._standing,
            plan.size_bytes,
            check_digests=plan.check_digests,
            stage=self._stages["receive"],
            clock=clock,
        )
        self._committer = Committer(
            device,
            ledger,
            self._standing,
            plan.size_bytes,
            stage=self._stages["flush"],
            clock=clock,
        )
        self._group = StageGroup("sink")
        self._group.closes(self)
        self._hail: Hail | None = None
        if plan.source_addresses and dial is not None:
            wanted = HailPlan(
                plan.transfer_id, plan.source_addresses, plan.channels, plan.dead_seconds
            )
            self._hail = Hail(wanted, dial, self._reception)
        self._clock = clock
        self._proof: Proof | None = None
        if plan.read_back:
            self._proof = Proof(
                device,
                ledger.manifest,
                plan.size_bytes,
                threads=plan.threads,
                clock=self._stages,
            )
        self._proven_root = b""

    # What the source asks for; see Reception.

    def write_state(self) -> transfer_pb2.GetWriteStateResponse:
        """How far the medium is safe."""
        return self._reception.write_state()

    def push(
        self, hello: transfer_pb2.PushHello, messages: Iterator[Message]
    ) -> Iterator[transfer_pb2.PushResponse]:
        """Serve one channel."""
        return self._reception.push(hello, messages)

    # What the job does.

    def run(self) -> None:
        """Receive everything and prove it.

        Raises:
            BlockferryError: what ended the job early.
        """
        try:
            self._receive()
            if self._proof is not None:
                self._proven_root = self._proof.finish()
        except BlockferryError as error:
            self._standing.stop(error)
            raise
        except Exception as error:
            _log.exception("receive %s", self._plan.transfer_id)
            self.close(error)
            raise _defect(error) from error

    def _receive(self) -> None:
        if self._hail is not None:
            self._hail.start()
        self._group.spawn("writer", self._write)
        self._group.spawn("committer", self._committer.run)
        if self._proof is not None:
            follower = Follower(self._proof, self._standing, self._plan.size_bytes, self._clock)
            self._group.spawn("prover", follower.run)
        while not self._group.wait(_WATCH_SECONDS):
            self._check_silence()
        self._group.join()

    def _check_silence(self) -> None:
        silent = self._reception.silent_seconds()
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
            session = self._standing.await_session(session)
            for item in session.items:
                self._apply(writer, item)
            if session.root is not None and session.error is None and self._complete(session):
                return

    def _apply(self, writer: DeviceWriter, item: Item) -> None:
        done_bytes = self._skip_committed()
        if item.end_bytes <= done_bytes:
            return
        if item.content is None:
            self._zero(writer, max(item.offset_bytes, done_bytes), item.end_bytes)
            return
        watch = Stopwatch()
        writer.write(item.offset_bytes, item.content)
        self._ledger.manifest.put(item.offset_bytes // CHUNK_BYTES, item.digest)
        self._stages["write"].add(item.length_bytes, watch.lap())
        self._move(item.length_bytes, 0)

    def _zero(self, writer: DeviceWriter, start_bytes: int, end_bytes: int) -> None:
        for piece in pieces(self._device, start_bytes, end_bytes):
            if self._standing.stopped is not None:
                raise Closed
            watch = Stopwatch()
            writer.zero(piece)
            first_chunk = piece.offset_bytes // CHUNK_BYTES
            self._ledger.manifest.put_zeros(first_chunk, chunk_count(piece.length_bytes))
            self._stages["zero"].add(piece.length_bytes, watch.lap())
            self._move(0, piece.length_bytes)

    def _skip_committed(self) -> int:
        """Where to write on: a commit of an earlier attempt's frames may come late."""
        standing = self._standing
        with standing.lock:
            if standing.written.offset_bytes < standing.committed.offset_bytes:
                standing.written = standing.committed
            return standing.written.offset_bytes

    def _move(self, data_bytes: int, zero_bytes: int) -> None:
        standing = self._standing
        with standing.lock:
            standing.written = standing.written.plus(data_bytes, zero_bytes)
            ahead = standing.written.offset_bytes - standing.committed.offset_bytes
            if ahead >= COMMIT_BYTES:
                standing.work.notify()

    def _complete(self, session: Session) -> bool:
        """Everything is written: commit it, compare roots, release the source.

        False when a newer session came meanwhile, which must be served as well.
        """
        standing = self._standing
        standing.await_committed(self._plan.size_bytes)
        root = self._ledger.manifest.root()
        with standing.lock:
            if standing.session is not session:
                return False
            self._reception.settle(session, root)
            standing.root = root
            standing.work.notify_all()
            return True

    # How the job ends and is seen.

    def cancel(self, reason: CancelledError) -> None:
        """Stop in order: the write in hand is finished, flushed and written down."""
        self._group.fail(reason)
        if self._proof is not None:
            self._proof.fail(reason)

    def close(self, error: BaseException | None = None) -> None:
        """End sessions and threads for `error`; called by the group's first failure."""
        known = error if isinstance(error, BlockferryError) else _defect(error)
        self._standing.stop(known)

    @property
    def committed_chunks(self) -> int:
        """Chunks below the commit point."""
        return chunk_count(self._standing.committed.offset_bytes)

    def report(self, job: agent_pb2.Job) -> None:
        """Fill in progress and results."""
        reception, proof, progress = self._reception, self._proof, job.progress
        committed = self._standing.committed
        progress.size_bytes = self._plan.size_bytes
        progress.committed_bytes = committed.offset_bytes
        progress.data_bytes = committed.data_bytes
        progress.zero_bytes = committed.zero_bytes
        progress.resumed_from_bytes = self._ledger.start.offset_bytes
        progress.sent_bytes = reception.sent_bytes
        progress.wire_bytes = reception.wire_bytes
        progress.verified_bytes = 0 if proof is None else proof.verified_bytes
        progress.reconnects = max(0, reception.attempts - 1)
        job.root_digest = self._proven_root or self._standing.root
        job.verified = bool(self._proven_root)
        self._stages.report(job)
        del job.differing[:]
        if proof is not None:
            job.differing.extend(
                agent_pb2.ByteRange(start_bytes=start, end_bytes=end)
                for start, end in proof.differing
            )


def _defect(error: BaseException | None) -> InternalError:
    return InternalError("RECEIVE_BROKEN", f"The receive job broke: {error!r}")
