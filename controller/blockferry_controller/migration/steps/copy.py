"""Step `copy`: the sink receives, the source pushes, the controller watches.

The bytes do not pass here. What does is how far they are: progress for people,
and the commit point with its digests, kept so that the migration goes on even
when the instance that knew them is gone.
"""

import contextlib
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from blockferry.errors import BlockferryError, BusyError, CancelledError, UsageError
from blockferry.limits import CHUNK_BYTES, DIGEST_BYTES
from blockferry.v1 import agent_pb2
from blockferry_controller.agents.port import Agent
from blockferry_controller.migration.context import Context, need
from blockferry_controller.migration.events import Progress, Progressed
from blockferry_controller.migration.spec import Transfer, Verify
from blockferry_controller.migration.steps.jobs import FINAL, device_of, outcome

WATCH_SECONDS: Final = 0.5
TICK_SECONDS: Final = 0.2
SAVE_SECONDS: Final = 1.0
"""Progress goes to the database at most this often (design §6)."""
STOP_SECONDS: Final = 60.0
"""Longest wait for agents to finish the write in hand after a stop."""

_VERIFY: Final = {
    Verify.READBACK: agent_pb2.VERIFY_READBACK,
    Verify.WIRE: agent_pb2.VERIFY_WIRE,
    Verify.NONE: agent_pb2.VERIFY_NONE,
}


class CopyBytes:
    """Run the pair of jobs until the source has pushed everything."""

    name = "copy"

    def do(self, context: Context) -> str:
        """The sink holds every byte, durably, on return; read back it is not yet."""
        sink, source = start_jobs(context)
        pair = JobPair(context, source, sink)
        with contextlib.closing(pair):
            pair.wait(lambda: pair.source.state in FINAL)
        done = context.progress
        moved = f"{done.sent_bytes} bytes sent as {done.wire_bytes}"
        return f"{moved}, from {done.resumed_from_bytes}" if done.resumed_from_bytes else moved

    def undo(self, context: Context, *, resumable: bool) -> None:
        """What was committed stays known while the volume that holds it does."""
        if not resumable:
            context.store.forget_manifest(context.migration_id)


def start_jobs(context: Context) -> tuple[agent_pb2.Job, agent_pb2.Job]:
    """Start, or find still at work, the sink's job and the source's, in this order."""
    receive = _find_or_start(context, need(context.destination.agent), "receive")
    copy = _find_or_start(context, need(context.source.agent), "copy")
    return receive, copy


def _find_or_start(context: Context, agent: Agent, kind: str) -> agent_pb2.Job:
    """The job of an earlier controller if it has not failed, else a new one."""
    for job in reversed(agent.list_jobs()):
        if job.request_id.startswith(f"{kind}-"):
            if outcome(job) is None:
                return job
            break
    request_id = f"{kind}-{context.epoch}"
    if kind == "receive":
        spec = _receive_spec(context, agent)
        return agent.start_job(agent_pb2.StartJobRequest(request_id=request_id, receive=spec))
    _give_manifest(context, agent)
    copy = _copy_spec(context)
    return agent.start_job(agent_pb2.StartJobRequest(request_id=request_id, copy=copy))


def _receive_spec(context: Context, agent: Agent) -> agent_pb2.ReceiveSpec:
    source = need(context.source.volume)
    return agent_pb2.ReceiveSpec(
        transfer_id=context.migration_id,
        device=device_of(need(context.destination.volume)),
        size_bytes=source.size_bytes,
        verify=_VERIFY[context.spec.transfer.verify],
        source_identity=f"{context.source.cloud.identity}/{source.id}/{source.size_bytes}",
        known_committed_bytes=_give_manifest(context, agent),
    )


def _give_manifest(context: Context, agent: Agent) -> int:
    """Hand over the digests that we keep; returns the bytes they cover."""
    store, own = context.store, context.migration_id
    count = store.manifest_count(own)
    if count == 0:
        return 0
    # An agent at work on the transfer, or that knows more itself, needs none.
    with contextlib.suppress(BusyError):
        agent.write_manifest(own, store.manifest_runs(own))
    return min(count * CHUNK_BYTES, need(context.source.volume).size_bytes)


def _copy_spec(context: Context) -> agent_pb2.CopySpec:
    source, transfer = need(context.source.volume), context.spec.transfer
    return agent_pb2.CopySpec(
        transfer_id=context.migration_id,
        device=device_of(source),
        size_bytes=source.size_bytes,
        sink_addresses=need(context.way).addresses,
        compression=_compression(transfer),
        channels=transfer.channels,
        limit_bytes_per_second=transfer.limit_bytes_per_second,
    )


def _compression(transfer: Transfer) -> agent_pb2.Compression:
    mode, _, level = transfer.compression.partition(":")
    if mode == "auto":
        return agent_pb2.Compression(mode=agent_pb2.Compression.MODE_AUTO)
    if mode == "none":
        return agent_pb2.Compression(mode=agent_pb2.Compression.MODE_NONE)
    if mode == "zstd" and level.lstrip("-").isdigit():
        return agent_pb2.Compression(mode=agent_pb2.Compression.MODE_ZSTD, level=int(level))
    raise UsageError(
        "COMPRESSION", f"compression {transfer.compression!r} is not auto, none or zstd:LEVEL"
    )


@dataclass(slots=True)
class _Watch:
    """The newest word from one agent's job, kept by a thread of its own."""

    agent: Agent
    job: agent_pb2.Job
    error: BlockferryError | None = None
    thread: threading.Thread = field(init=False)

    def __post_init__(self) -> None:
        self.thread = threading.Thread(target=self._run, name="watch", daemon=True)
        self.thread.start()

    def _run(self) -> None:
        try:
            for job in self.agent.watch_job(self.job.id, WATCH_SECONDS):
                self.job = job
        except BlockferryError as error:
            self.error = error


class JobPair:
    """Both jobs of a transfer, watched together.

    Calls of `wait` come from one thread. Closing saves what is known.
    """

    def __init__(self, context: Context, source: agent_pb2.Job, sink: agent_pb2.Job) -> None:
        self._context = context
        self._source = _Watch(need(context.source.agent), source)
        self._sink = _Watch(need(context.destination.agent), sink)
        self._saved_at = 0.0
        self._phase = "copy"

    @property
    def source(self) -> agent_pb2.Job:
        """The source's job as last heard."""
        return self._source.job

    @property
    def sink(self) -> agent_pb2.Job:
        """The sink's job as last heard."""
        return self._sink.job

    def wait(self, done: Callable[[], bool], *, phase: str = "copy") -> None:
        """Return when `done()`, telling progress meanwhile.

        Raises:
            BlockferryError: a job's own error, the sink's before the source's, since
                a source usually fails because its sink did; or `Context.check`'s.
        """
        self._phase = phase
        while not self._ended(done):
            try:
                self._context.check()
            except CancelledError:
                self._stop_jobs()
                raise
            self._source.thread.join(TICK_SECONDS if self._source.thread.is_alive() else 0)
            if not self._source.thread.is_alive():
                self._sink.thread.join(TICK_SECONDS)
            self._tell()
        self._tell(save=True)

    def _ended(self, done: Callable[[], bool]) -> bool:
        for watch in (self._sink, self._source):
            error = outcome(watch.job) or watch.error
            if error is not None:
                self._settle()
                raise outcome(self._sink.job) or error
        return done()

    def _settle(self) -> None:
        """Let the other job end too: its error may be the cause."""
        self._stop_jobs(wait_seconds=5.0)
        self._tell(save=True)

    def _stop_jobs(self, wait_seconds: float = STOP_SECONDS) -> None:
        for watch in (self._source, self._sink):
            if watch.job.state not in FINAL and watch.error is None:
                with contextlib.suppress(BlockferryError):
                    watch.agent.cancel_job(watch.job.id)
                watch.thread.join(wait_seconds)

    def _tell(self, *, save: bool = False) -> None:
        context = self._context
        progress = _merge(self._source.job.progress, self._sink.job.progress, self._phase)
        if progress != context.progress:
            context.progress = progress
            context.tell(Progressed(context.migration_id, progress))
        if save or time.monotonic() - self._saved_at >= SAVE_SECONDS:
            self._saved_at = time.monotonic()
            self._save(progress)

    def _save(self, progress: Progress) -> None:
        context = self._context
        if context.lost.is_set():
            return
        context.store.save_progress(context.migration_id, progress)
        # Lost words cost a resumed run some bytes, never a wrong one.
        with contextlib.suppress(BlockferryError):
            keep_manifest(context, self._sink.agent)

    def close(self) -> None:
        """Save what is known, unless somebody else drives the migration now."""
        with contextlib.suppress(BlockferryError):
            self._tell(save=True)


def keep_manifest(context: Context, sink: Agent) -> None:
    """Copy the sink's digests up to its commit point into the state database."""
    store, own = context.store, context.migration_id
    known = store.manifest_count(own)
    for first_chunk, digests in sink.read_manifest(own, known):
        if first_chunk != known:
            return
        store.add_manifest(own, first_chunk, digests)
        known += len(digests) // DIGEST_BYTES


def _merge(source: agent_pb2.JobProgress, sink: agent_pb2.JobProgress, phase: str) -> Progress:
    """The sink knows what is safe; the source knows what it sent."""
    return Progress(
        phase=phase,
        size_bytes=sink.size_bytes or source.size_bytes,
        committed_bytes=sink.committed_bytes,
        data_bytes=sink.data_bytes,
        zero_bytes=sink.zero_bytes,
        resumed_from_bytes=source.resumed_from_bytes,
        sent_bytes=source.sent_bytes,
        wire_bytes=source.wire_bytes,
        verified_bytes=sink.verified_bytes,
        reconnects=source.reconnects,
    )
