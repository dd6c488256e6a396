"""What the jobs of agents in memory do as time passes. See `agent`."""

import hashlib
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any, Final, Protocol

from blockferry.errors import (
    BlockferryError,
    CancelledError,
    IntegrityError,
    PreconditionError,
    UnreachableError,
    UsageError,
)
from blockferry.identity import Role
from blockferry.limits import CHUNK_BYTES, DIGEST_BYTES, MANIFEST_RUN_CHUNKS
from blockferry.v1 import agent_pb2
from blockferry.wire import to_proto

PATIENCE_SECONDS: Final = 120.0
"""A source without a sink gives up after so long, as a real one does."""

FINAL: Final = {
    agent_pb2.JOB_STATE_SUCCEEDED,
    agent_pb2.JOB_STATE_FAILED,
    agent_pb2.JOB_STATE_CANCELLED,
}


@dataclass(frozen=True, slots=True)
class Content:
    """What a volume holds, without holding it.

    Attributes:
        data_bytes: How much of it is not zero, spread evenly.
        name: Stands for the bytes.
    """

    size_bytes: int
    data_bytes: int
    name: str = "data"

    def root(self, size_bytes: int) -> bytes:
        """A root digest of the first bytes; not what real agents would find."""
        return hashlib.sha256(f"{self.name}:{size_bytes}".encode()).digest()

    def digest(self, chunk: int) -> bytes:
        """A chunk's digest; not what real agents would find."""
        return hashlib.sha256(f"{self.name}#{chunk}".encode()).digest()


@dataclass(slots=True)
class Transfer:
    """What an agent keeps of a transfer over its restarts."""

    source_identity: str = ""
    committed_bytes: int = 0
    chunks: int = 0
    digest: Callable[[int], bytes] = lambda chunk: b""

    def runs(self, first_chunk: int) -> Iterator[tuple[int, bytes]]:
        """Digests from a chunk on."""
        for start in range(first_chunk, self.chunks, MANIFEST_RUN_CHUNKS):
            end = min(self.chunks, start + MANIFEST_RUN_CHUNKS)
            yield start, b"".join(self.digest(chunk) for chunk in range(start, end))

    def learn(self, content: Content, committed_bytes: int) -> None:
        """Know the digests of `content` up to a commit point."""
        self.committed_bytes = committed_bytes
        self.chunks = math.ceil(committed_bytes / CHUNK_BYTES)
        self.digest = content.digest

    def take(self, digests: bytes) -> None:
        """Know what another agent knew; what is known beyond it stays."""
        known = b"".join(self.digest(chunk) for chunk in range(self.chunks))
        if known.startswith(digests):
            return
        self.chunks = len(digests) // DIGEST_BYTES
        self.digest = lambda chunk: digests[chunk * DIGEST_BYTES : (chunk + 1) * DIGEST_BYTES]


@dataclass(slots=True)
class Work:
    """One job; `advance` moves it on by seconds of time."""

    job: agent_pb2.Job
    device: str
    transfer_id: str
    advance: Callable[[float], None] = field(default=lambda seconds: None)
    limit_bytes_per_second: int = 0
    moved_at: float = 0.0

    @property
    def ended(self) -> bool:
        return self.job.state in FINAL


class World(Protocol):
    """What jobs need of the agent they run in and of those around it."""

    volumes: dict[str, Content]
    bytes_per_second: float
    write_bytes_per_second: float

    def find_sink(self, transfer_id: str, addresses: list[str]) -> Work | None:
        """The receive job that a source reaches, if it runs."""
        ...

    def find_source(self, transfer_id: str) -> str | None:
        """The volume that the copy job of a transfer, running or ended, reads."""
        ...


def end(work: Work, error: BlockferryError | None = None) -> None:
    """Put it in its final state, once."""
    if work.ended:
        return
    if error is None:
        work.job.state = agent_pb2.JOB_STATE_SUCCEEDED
    else:
        cancelled = isinstance(error, CancelledError)
        work.job.state = agent_pb2.JOB_STATE_CANCELLED if cancelled else agent_pb2.JOB_STATE_FAILED
        work.job.error.CopyFrom(to_proto(error))
    work.job.end_time.GetCurrentTime()


def prepare(world: World, role: Role, work: Work, kind: str, spec: Any, kept: Transfer) -> None:
    """Give `work` its `advance`.

    Raises:
        BlockferryError: as a real agent refuses.
    """
    wanted = {"copy": Role.SOURCE, "receive": Role.SINK, "write_probe": Role.SINK}
    if wanted.get(kind, role) is not role:
        raise PreconditionError("WRONG_ROLE", f"this agent is a {role.value}")
    makers = {
        "copy": _copy,
        "receive": _receive,
        "digest": _digest,
        "probe": _probe,
        "write_probe": _write_probe,
    }
    work.advance = makers[kind](world, work, spec, kept)


def _copy(world: World, work: Work, spec: Any, kept: Transfer) -> Callable[[float], None]:
    content = world.volumes[work.device]
    if spec.size_bytes not in {0, content.size_bytes}:
        raise PreconditionError("DEVICE_SIZE_DIFFERS", f"{work.device} has another size")
    work.limit_bytes_per_second = spec.limit_bytes_per_second
    work.job.progress.size_bytes = content.size_bytes
    begun: list[int] = []
    alone_seconds = 0.0

    def advance(seconds: float) -> None:
        nonlocal alone_seconds
        sink = world.find_sink(spec.transfer_id, list(spec.sink_addresses))
        alone_seconds = 0.0 if sink is not None else alone_seconds + seconds
        if alone_seconds > PATIENCE_SECONDS:
            raise UnreachableError("SINK_LOST", f"no sink for {alone_seconds:.0f} s")
        if sink is not None:
            if not begun:
                begun.append(sink.job.progress.committed_bytes)
                work.job.progress.resumed_from_bytes = begun[0]
            _push(world, work, sink, content, seconds)
            kept.learn(content, work.job.progress.committed_bytes)

    return advance


def _push(world: World, work: Work, sink: Work, content: Content, seconds: float) -> None:
    """Move what `seconds` allow: in whole chunks, as a commit point does."""
    rate = min(world.bytes_per_second, work.limit_bytes_per_second or math.inf)
    size, before = content.size_bytes, sink.job.progress.committed_bytes
    reached = min(size, before + int(seconds * rate))
    if reached < size:
        reached -= reached % CHUNK_BYTES
        work.moved_at -= max(0.0, seconds - (reached - before) / rate)
    share = content.data_bytes / size if size else 0.0
    for job in (work.job, sink.job):
        job.progress.committed_bytes = reached
        job.progress.data_bytes = int(reached * share)
        job.progress.zero_bytes = reached - job.progress.data_bytes
    sent = int((reached - work.job.progress.resumed_from_bytes) * share)
    work.job.progress.sent_bytes = sent
    work.job.progress.wire_bytes = sent // 2
    if reached == size:
        work.job.root_digest = content.root(size)
        end(work)


def _receive(world: World, work: Work, spec: Any, kept: Transfer) -> Callable[[float], None]:
    if world.volumes[work.device].size_bytes < spec.size_bytes:
        raise PreconditionError("DESTINATION_TOO_SMALL", f"{work.device} is too small")
    if kept.source_identity != spec.source_identity:
        covered = kept.chunks * CHUNK_BYTES >= spec.known_committed_bytes
        kept.committed_bytes = spec.known_committed_bytes if covered else 0
        kept.source_identity = spec.source_identity
    progress = work.job.progress
    progress.size_bytes = spec.size_bytes
    progress.committed_bytes = progress.resumed_from_bytes = kept.committed_bytes

    def advance(_: float) -> None:
        source = world.find_source(spec.transfer_id)
        if source is not None:
            kept.learn(world.volumes[source], progress.committed_bytes)
            if progress.committed_bytes == spec.size_bytes:
                _prove(world, work, spec, world.volumes[source])

    return advance


def _prove(world: World, work: Work, spec: Any, source: Content) -> None:
    medium = world.volumes[work.device]
    if medium.name != "spoiled":
        medium = replace(medium, name=source.name, data_bytes=source.data_bytes)
        world.volumes[work.device] = medium
    if spec.verify in {agent_pb2.VERIFY_UNSPECIFIED, agent_pb2.VERIFY_READBACK}:
        if medium.name != source.name:
            # Too much for a repair: no range is named.
            raise IntegrityError("READBACK_MISMATCH", f"{work.device} holds something else")
        work.job.verified = True
        work.job.progress.verified_bytes = spec.size_bytes
    work.job.root_digest = source.root(spec.size_bytes)
    end(work)


def _digest(world: World, work: Work, spec: Any, _: Transfer) -> Callable[[float], None]:
    content = world.volumes[work.device]
    size = spec.size_bytes or content.size_bytes
    if size > content.size_bytes:
        raise UsageError("OUT_OF_RANGE", f"{work.device} has {content.size_bytes} bytes")
    progress = work.job.progress
    progress.size_bytes = size

    def advance(seconds: float) -> None:
        done = progress.verified_bytes + int(seconds * world.bytes_per_second)
        progress.verified_bytes = min(size, done)
        if progress.verified_bytes == size:
            work.job.root_digest = content.root(size)
            end(work)

    return advance


def _probe(world: World, work: Work, spec: Any, _: Transfer) -> Callable[[float], None]:
    content = world.volumes[work.device]
    left = [spec.duration.ToTimedelta().total_seconds() or 2.0]

    def advance(seconds: float) -> None:
        left[0] -= seconds
        if left[0] <= 0:
            size = content.size_bytes
            work.job.probe_result.read_bytes_per_second = int(world.bytes_per_second)
            work.job.probe_result.compressed_ratio = 0.5
            work.job.probe_result.zero_ratio = 1 - content.data_bytes / size if size else 0.0
            end(work)

    return advance


def _write_probe(world: World, work: Work, spec: Any, kept: Transfer) -> Callable[[float], None]:
    if not spec.device.volume_id:
        raise UsageError("VOLUME_ID_NEEDED", f"{work.device} is somebody's")
    if kept.source_identity or kept.chunks:
        raise PreconditionError("TRANSFER_BEGUN", f"{spec.transfer_id} has begun")
    duration = spec.duration.ToTimedelta().total_seconds() or 2.0
    if not 0 < duration <= 10:
        raise UsageError("OUT_OF_RANGE", f"not for {duration} s")
    if world.volumes[work.device].size_bytes < spec.size_bytes:
        raise PreconditionError("DESTINATION_TOO_SMALL", f"{work.device} is too small")
    left = [duration]

    def advance(seconds: float) -> None:
        left[0] -= seconds
        if left[0] <= 0:
            # What an eighth does not measure is too little.
            measured = spec.size_bytes // 8 >= CHUNK_BYTES
            rate = int(world.write_bytes_per_second) if measured else 0
            work.job.probe_result.write_bytes_per_second = rate
            end(work)

    return advance
