"""Step `probe`: devices are there, and what the copy will be like.

A rate that could not be measured is assumed: no migration fails for want of one.
"""

import contextlib
from functools import partial
from typing import Final

from google.protobuf.duration_pb2 import Duration

from blockferry.errors import BlockferryError, BusyError, DeadlineError, NotFoundError
from blockferry.identity import Role
from blockferry.limits import GIB, MIB
from blockferry.v1 import agent_pb2
from blockferry_controller.agents.port import Agent
from blockferry_controller.migration.context import Context, Side, need
from blockferry_controller.migration.prediction import ASSUMED_LINK, ASSUMED_VOLUME, Rates
from blockferry_controller.migration.preflight import BOOTED
from blockferry_controller.migration.preflight.check import enforce
from blockferry_controller.migration.steps.jobs import FINAL, device_of, run_job
from blockferry_controller.migration.waiting import attempts
from blockferry_controller.migration.ways import Direction
from blockferry_controller.notation import format_rate
from blockferry_controller.spec import Kind

DEVICE_SECONDS: Final = 60.0
"""Longest time from an attachment to its device; 0.2 s is usual."""
LOOK_SECONDS: Final = 0.001
"""Enough to open a device and read how it begins; 0 would be the agent's default of 2 s."""
MEASURE_FROM_BYTES: Final = 4 * GIB
"""Smaller volumes are copied sooner than measured."""
MEASURE_SECONDS: Final = 2
MEASURE_LONG_FROM_BYTES: Final = 64 * GIB
"""From here on a copy takes minutes, and caches of the storage should not be what is measured."""
MEASURE_LONG_SECONDS: Final = 10
LINK_SECONDS: Final = 1.0
LINK_LONG_SECONDS: Final = 3.0
"""The link takes less: nothing between the agents keeps what was sent before."""
WRITE_SECONDS: Final = 2.0
WRITE_LONG_SECONDS: Final = 5.0
"""Beside the reading of the source, and over sooner: what is written is made durable yet."""
_WRITES_FACT: Final = "write_bytes_per_second"
_END_SECONDS: Final = 0.1


class ProbePair:
    """Wait for the devices; measure both and the link where it is worth it."""

    name = "probe"

    def do(self, context: Context) -> str:
        """Both agents see their device on return."""
        context.both(lambda side: _wait_for_device(context, side))
        found = "both devices found"
        if _is_worth_measuring(context):
            with contextlib.suppress(BusyError):
                found = _measure(context)
        *_, window = enforce(BOOTED, context)
        return f"{found}; {window.detail}" if context.rates is not None else found

    def undo(self, context: Context, *, resumable: bool) -> None:
        """Nothing was made."""


def _is_worth_measuring(context: Context) -> bool:
    """Whether somebody waits for the answer, or it takes far less than what it foretells.

    Of a copy on one machine nobody has to decide anything by it.
    """
    left = need(context.source.volume).size_bytes - context.progress.committed_bytes
    moves = context.spec.kind is not Kind.COPY and left >= MEASURE_FROM_BYTES
    return moves or context.spec.max_duration_seconds > 0


def _wait_for_device(context: Context, side: Side) -> None:
    volume = need(side.volume)
    if volume.path:
        return
    agent = need(side.agent)
    for _ in attempts(context, DEVICE_SECONDS):
        try:
            side.look = run_job(agent, _probe(context, side, "look", LOOK_SECONDS)).probe_result
        except NotFoundError:
            continue
        except BusyError:
            # A job that an earlier controller started has it open: it is there.
            if _end_probes(context, agent):
                continue
        return
    seen = ", ".join(f"{d.path} ({d.serial or 'no serial'})" for d in agent.list_block_devices())
    raise DeadlineError(
        "DEVICE_MISSING",
        f"volume {volume.id} is attached in {side.cloud.name}, but the instance shows no device "
        f"with that serial after {DEVICE_SECONDS:.0f} s; it shows: {seen or 'none'}",
        volume=volume.id,
    )


def _end_probes(context: Context, agent: Agent) -> bool:
    """End what a controller that died was measuring, or the copy would find it busy."""
    left = [
        job
        for job in agent.list_jobs()
        if job.request_id.startswith("probe-") and job.state not in FINAL
    ]
    for job in left:
        agent.cancel_job(job.id)
        for _ in agent.watch_job(job.id, _END_SECONDS):
            context.check()
    return bool(left)


def _measure(context: Context) -> str:
    long = need(context.source.volume).size_bytes >= MEASURE_LONG_FROM_BYTES
    # Both at once, as in a copy.
    found, _ = context.both(partial(_measure_medium, context, long=long))
    if not found.read_bytes_per_second:
        # Holes all over: they are neither read nor sent.
        return "the source has nothing to read"
    link = _measure_link(context, LINK_LONG_SECONDS if long else LINK_SECONDS)
    writes = _known_writes(context)
    context.rates = Rates(
        read_bytes_per_second=found.read_bytes_per_second,
        link_bytes_per_second=link or ASSUMED_LINK,
        write_bytes_per_second=writes or ASSUMED_VOLUME,
        zero_ratio=found.zero_ratio,
        compressed_ratio=found.compressed_ratio,
        link_measured=link > 0,
        write_measured=writes > 0,
    )
    return (
        f"source reads {found.read_bytes_per_second / MIB:.0f} MiB/s, "
        f"{found.zero_ratio:.0%} of the sample is zero, the rest shrinks to "
        f"{found.compressed_ratio:.0%}"
        f"{f', the link carries {format_rate(link)}' if link else ''}"
        f"{f', the destination writes {format_rate(writes)}' if writes else ''}"
    )


def _measure_medium(context: Context, side: Side, *, long: bool) -> agent_pb2.ProbeResult:
    if side.role is Role.SINK:
        _measure_writes(context, WRITE_LONG_SECONDS if long else WRITE_SECONDS)
        return agent_pb2.ProbeResult()
    seconds = MEASURE_LONG_SECONDS if long else MEASURE_SECONDS
    return run_job(need(side.agent), _probe(context, side, "measure", seconds)).probe_result


def _measure_writes(context: Context, seconds: float) -> None:
    """Have the new volume written, while nothing of it counts, and keep the rate.

    What a person named, of `copy`, is theirs until the copy begins; and what an earlier
    attempt has committed stays. The agent refuses both, too.
    """
    side, source = context.destination, need(context.source.volume)
    volume = need(side.volume)
    begun = context.progress.committed_bytes or context.store.manifests.count(context.migration_id)
    if volume.path or begun:
        return
    request = agent_pb2.StartJobRequest(
        request_id=f"probe-write-{context.migration_id}-{context.epoch}",
        write_probe=agent_pb2.WriteProbeSpec(
            transfer_id=context.migration_id,
            device=device_of(volume),
            size_bytes=source.size_bytes,
            duration=_duration(seconds),
        ),
    )
    try:
        found = run_job(need(side.agent), request).probe_result
    except BlockferryError as error:
        # A device that does not take writes, or an agent that is away, is found by the copy.
        context.note(f"the destination's writes were not measured: {error}")
        return
    context.remember(**{_WRITES_FACT: found.write_bytes_per_second})


def _known_writes(context: Context) -> int:
    """Bytes per second that this attempt or an earlier one has measured; else 0."""
    known = context.fact(_WRITES_FACT)
    return known if isinstance(known, int) else 0


def _measure_link(context: Context, seconds: float) -> int:
    """Bytes per second of the proven way; 0 where nobody has measured it.

    Whoever gives a limit shares the link with others, and one between agents of the
    same machine is none.
    """
    way = need(context.way)
    if context.limit_bytes_per_second or need(context.source.volume).path:
        return 0
    dials = way.direction is Direction.SOURCE_DIALS
    dialler = need((context.source if dials else context.destination).agent)
    channels = context.spec.transfer.channels
    try:
        found = dialler.measure_link(way.addresses[0], channels, seconds)
    except BlockferryError as error:
        # Where the agent itself is away, the next call finds that out.
        context.note(f"the link was not measured: {error}")
        return 0
    if found.HasField("error"):
        context.note(f"the link was not measured: {found.error.message}")
        return 0
    return found.bytes_per_second


def _probe(context: Context, side: Side, what: str, seconds: float) -> agent_pb2.StartJobRequest:
    return agent_pb2.StartJobRequest(
        request_id=f"probe-{what}-{context.migration_id}-{context.epoch}",
        probe=agent_pb2.ProbeSpec(device=device_of(need(side.volume)), duration=_duration(seconds)),
    )


def _duration(seconds: float) -> Duration:
    duration = Duration()
    duration.FromMicroseconds(round(seconds * 1e6))
    return duration
