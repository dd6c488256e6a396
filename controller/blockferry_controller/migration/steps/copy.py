"""Step `copy`: the sink receives, the source pushes, the controller watches.

The bytes do not pass here. What does is how far they are: progress for people,
and the commit point with its digests, kept so that the migration goes on even
when the instance that knew them is gone.
"""

import contextlib
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Final

from blockferry.errors import IntegrityError, UsageError
from blockferry.v1 import agent_pb2
from blockferry_controller.agents.port import Agent
from blockferry_controller.migration.authority import RENEW_AFTER
from blockferry_controller.migration.context import Context, need
from blockferry_controller.migration.steps.jobs import FINAL, device_of, outcome
from blockferry_controller.migration.steps.manifests import give_manifest
from blockferry_controller.migration.steps.pair import JobPair
from blockferry_controller.migration.steps.reach import renew
from blockferry_controller.migration.ways import Direction, Rung
from blockferry_controller.spec import Transfer, Verify

Ranges = Sequence[tuple[int, int]]
"""[start, end) in bytes; see ByteRange in agent.proto."""

RENEW_SECONDS: Final = RENEW_AFTER.total_seconds()
"""Certificates of agents and controller are replaced when they are that old."""

_VERIFY: Final = {
    Verify.READBACK: agent_pb2.VERIFY_READBACK,
    Verify.WIRE: agent_pb2.VERIFY_WIRE,
    Verify.NONE: agent_pb2.VERIFY_NONE,
}

_PULLED: Final = "-pull"
"""Ends the request ids of jobs of a pair whose sink dials."""
_RELAYED: Final = "-relay"
"""Ends those of a pair whose bytes this controller carries."""
_END_SECONDS: Final = 0.2


class CopyBytes:
    """Run the pair of jobs until the source has pushed everything."""

    name = "copy"

    def do(self, context: Context) -> str:
        """The sink holds every byte, durably, on return; read back it is not yet."""
        try:
            watch_jobs(context, lambda pair: pair.source.state in FINAL)
        except IntegrityError:
            # Every byte came and was read back already: what to do next, the proof knows.
            if not context.differing:
                raise
        done = context.progress
        moved = f"{done.sent_bytes} bytes sent as {done.wire_bytes}"
        return f"{moved}, from {done.resumed_from_bytes}" if done.resumed_from_bytes else moved

    def undo(self, context: Context, *, resumable: bool) -> None:
        """What was committed stays known while the volume that holds it does."""
        if not resumable:
            context.written(context.store.manifests.forget(context.migration_id, context.epoch))


def watch_jobs(
    context: Context, done: Callable[[JobPair], bool], *, phase: str = "copy", only: Ranges = ()
) -> JobPair:
    """Run both jobs until `done`; whoever is at it for hours gets new certificates.

    Args:
        context: Of the attempt.
        done: Asked again and again.
        phase: For people.
        only: What is to be sent again of a transfer that is complete; else everything.

    Raises:
        BlockferryError: as `JobPair.wait`.
    """
    while True:
        sink, source = start_jobs(context, only)
        until = time.monotonic() + RENEW_SECONDS
        with contextlib.closing(JobPair(context, source, sink, part=bool(only))) as pair:
            if pair.wait(partial(done, pair), phase=phase, until=until):
                return pair
        for side in context.sides:
            renew(context, side)


def start_jobs(context: Context, only: Ranges = ()) -> tuple[agent_pb2.Job, agent_pb2.Job]:
    """Start, or find still at work, the sink's job and the source's, in this order."""
    sink, source = need(context.destination.agent), need(context.source.agent)
    kind = "repair-" if only else ""
    # Named after the migration: of another one no job is ever taken for its own.
    receives = f"{kind}receive-{context.migration_id}"
    copies = f"{kind}copy-{context.migration_id}"
    receive, begun = _last_job(context, sink, receives)
    copy, tried = _last_job(context, source, copies)
    if receive is None:
        spec = _receive_spec(context, sink, only)
        request_id = f"{receives}-{context.epoch}.{begun}{_mark(context)}"
        receive = sink.start_job(agent_pb2.StartJobRequest(request_id=request_id, receive=spec))
        # A source that had told everything to the former job has not told this one.
        copy = None if copy is not None and copy.state in FINAL else copy
    if copy is None:
        give_manifest(context, source)
        request_id = f"{copies}-{context.epoch}.{tried}{_mark(context)}"
        request = agent_pb2.StartJobRequest(request_id=request_id, copy=_copy_spec(context, only))
        copy = source.start_job(request)
    elif not copy.request_id.startswith(f"{copies}-{context.epoch}."):
        context.met.setdefault(copy.id, _met(copy, receive, part=bool(only)))
    return receive, copy


def _met(copy: agent_pb2.Job, receive: agent_pb2.Job, *, part: bool) -> agent_pb2.JobProgress:
    """How far a source's job was that a former attempt had started.

    Of a repair's jobs none knows how far the whole is.
    """
    met = agent_pb2.JobProgress()
    met.CopyFrom(copy.progress)
    if not part:
        met.resumed_from_bytes = receive.progress.committed_bytes
    return met


def _last_job(context: Context, agent: Agent, kind: str) -> tuple[agent_pb2.Job | None, int]:
    """The newest job of a kind unless it failed, and how many there were.

    One that still waits on a way that does not hold any more is ended.
    """
    jobs = [job for job in agent.list_jobs() if job.request_id.startswith(f"{kind}-")]
    if not jobs or outcome(jobs[-1]) is not None:
        return None, len(jobs)
    last = jobs[-1]
    if last.state in FINAL or _mark_of(last) == _mark(context):
        return last, len(jobs)
    agent.cancel_job(last.id)
    for _ in agent.watch_job(last.id, _END_SECONDS):
        context.check()
    return None, len(jobs)


def _mark(context: Context) -> str:
    """Tells jobs that another way was told from those that this one was."""
    if need(context.way).rung is Rung.RELAY:
        return _RELAYED
    return _PULLED if _sink_dials(context) else ""


def _mark_of(job: agent_pb2.Job) -> str:
    return next((mark for mark in (_PULLED, _RELAYED) if job.request_id.endswith(mark)), "")


def _sink_dials(context: Context) -> bool:
    return need(context.way).direction is Direction.SINK_DIALS


def _receive_spec(context: Context, agent: Agent, only: Ranges) -> agent_pb2.ReceiveSpec:
    source = need(context.source.volume)
    # What was sent again is judged by the reading of all that follows.
    verify = agent_pb2.VERIFY_WIRE if only else _VERIFY[context.spec.transfer.verify]
    return agent_pb2.ReceiveSpec(
        transfer_id=context.migration_id,
        device=device_of(need(context.destination.volume)),
        size_bytes=source.size_bytes,
        verify=verify,
        source_identity=f"{context.source.cloud.identity}/{source.id}/{source.size_bytes}",
        known_committed_bytes=give_manifest(context, agent),
        source_addresses=need(context.way).addresses if _sink_dials(context) else (),
        channels=context.spec.transfer.channels,
        only=_byte_ranges(only),
    )


def _copy_spec(context: Context, only: Ranges) -> agent_pb2.CopySpec:
    source, transfer = need(context.source.volume), context.spec.transfer
    return agent_pb2.CopySpec(
        transfer_id=context.migration_id,
        device=device_of(source),
        size_bytes=source.size_bytes,
        sink_addresses=() if _sink_dials(context) else need(context.way).addresses,
        compression=_compression(transfer),
        channels=transfer.channels,
        limit_bytes_per_second=context.limit_bytes_per_second,
        only=_byte_ranges(only),
    )


def _byte_ranges(only: Ranges) -> list[agent_pb2.ByteRange]:
    return [agent_pb2.ByteRange(start_bytes=start, end_bytes=end) for start, end in only]


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
