"""Agents in memory: the Agent port without processes and without bytes.

A `MemoryLink` is the world of some agents: time, volumes, who listens where. A
copy job advances with the link's clock, whenever anybody looks, towards the
sink's receive job of the same transfer, at `bytes_per_second`; a write probe finds
`write_bytes_per_second`. Nothing is read or written, and with a clock that a test
moves, 800 TB cross in a millisecond.

What a test can do beside the port's verbs:
* `link.add_volume("id-or-path", Content(size_bytes, data_bytes, name))`: equal
  names are equal content; a receive job gives the volume the source's content;
* `agent.fail("start_job", error, nth=2)`: the second call from now raises, without effect;
* `agent.restart()`: jobs are forgotten, commit points and manifests stay;
  `agent.down = True`: nobody answers;
* RELAY_ADDRESS is the sink for as long as the source is lent a stream: `relay`;
* `link.spoil("id")`: the medium holds something else, which readback finds.
"""

import copy
import threading
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from blockferry import __version__
from blockferry.errors import (
    BlockferryError,
    BusyError,
    CancelledError,
    NotFoundError,
    UnreachableError,
    UsageError,
)
from blockferry.identity import Identity, Role
from blockferry.limits import DIGEST_BYTES, GIB, MIB, RELAY_ADDRESS
from blockferry.v1 import agent_pb2
from blockferry.wire import to_proto
from blockferry_controller.clock import Clock, SystemClock
from tests.fakes.agent_jobs import FINAL, Content, Transfer, Work, end, prepare

__all__ = ["Content", "MemoryAgent", "MemoryLink"]

_ROLES: Final = {Role.SOURCE: agent_pb2.ROLE_SOURCE, Role.SINK: agent_pb2.ROLE_SINK}


@dataclass(slots=True)
class _Fault:
    verb: str
    error: BlockferryError
    after_calls: int


@dataclass
class MemoryLink:
    """The world of some agents."""

    clock: Clock = field(default_factory=SystemClock)
    bytes_per_second: float = 500.0 * MIB
    write_bytes_per_second: float = 400.0 * MIB
    volumes: dict[str, Content] = field(default_factory=dict)
    agents: "dict[str, MemoryAgent]" = field(default_factory=dict)
    sources: dict[str, str] = field(default_factory=dict)
    """What each transfer was read from: a sink has it by then, and needs no source to prove it."""
    lock: threading.RLock = field(default_factory=threading.RLock)

    def add_volume(self, name: str, content: Content) -> None:
        """A volume that every agent sees, by its id or as a path."""
        self.volumes[name] = content

    def spoil(self, name: str) -> None:
        """Something else is on the medium than was written."""
        self.volumes[name] = replace(self.volumes[name], name="spoiled")

    def agent(self, role: Role, migration_id: str = "m-test") -> "MemoryAgent":
        """A new agent that listens at `<role>.<migration id>:7443`."""
        agent = MemoryAgent(self, Identity(migration_id, role, 1))
        self.agents[agent.address] = agent
        return agent

    def find_sink(self, transfer_id: str, addresses: list[str]) -> Work | None:
        """See World. As real sinks do, one that is done tells so again to whoever comes anew."""
        found = [self.find_agent(address, Role.SINK) for address in addresses]
        works = [
            work
            for agent in found
            if agent is not None and not agent.down
            for work in agent.works
            if work.transfer_id == transfer_id
        ]
        running = [work for work in works if not work.ended]
        done = [work for work in works if work.job.state == agent_pb2.JOB_STATE_SUCCEEDED]
        return next(iter(running or done[-1:]), None)

    def find_agent(self, address: str, role: Role) -> "MemoryAgent | None":
        """Who listens there; a relay has an agent of `role` behind it."""
        if address != RELAY_ADDRESS:
            return self.agents.get(address)
        agents = self.agents.values()
        lent = any(agent.lent for agent in agents)
        return next((one for one in agents if lent and one.identity.role is role), None)

    def find_source(self, transfer_id: str) -> str | None:
        """See World."""
        return self.sources.get(transfer_id)


class MemoryAgent:
    """See the module. Thread-safe."""

    def __init__(self, link: MemoryLink, identity: Identity) -> None:
        self.identity = identity
        self.address = f"{identity.role.value}.{identity.migration_id}:7443"
        self.adopted_pem = b""
        self.boot_id = uuid.uuid4().hex
        self.down = False
        self.calls: list[str] = []
        self.lent: list[MemoryAgent] = []
        self._hung_up = threading.Event()
        self._link = link
        self._works: dict[str, Work] = {}
        self._transfers: dict[str, Transfer] = {}
        self._faults: list[_Fault] = []

    def fail(self, verb: str, error: BlockferryError, *, nth: int = 1) -> None:
        """Let the nth call of `verb` from now raise `error`."""
        with self._link.lock:
            self._faults.append(_Fault(verb, error, nth - 1))

    def restart(self) -> None:
        """A new process with the old state directory."""
        with self._link.lock:
            self.settle()
            self._works.clear()

    def describe(self) -> agent_pb2.DescribeResponse:
        """See Agent."""
        with self._link.lock:
            self._enter("describe")
            response = agent_pb2.DescribeResponse(
                version=__version__,
                migration_id=self.identity.migration_id,
                role=_ROLES[self.identity.role],
                epoch=self.identity.epoch,
                adopted=bool(self.adopted_pem),
                boot_id=self.boot_id,
                hostname=self.identity.role.value,
                cpu_count=1,
                memory_bytes=GIB // 2,
                resident_bytes=50 * MIB,
                peak_resident_bytes=60 * MIB,
                busy=bool(self.running()),
            )
            response.now.GetCurrentTime()
            return response

    def list_block_devices(self) -> list[agent_pb2.BlockDevice]:
        """See Agent."""
        with self._link.lock:
            self._enter("list_block_devices")
            return [
                agent_pb2.BlockDevice(
                    path=f"/dev/disk/{name}",
                    serial=name[:20],
                    size_bytes=content.size_bytes,
                    logical_block_bytes=512,
                )
                for name, content in sorted(self._seen().items())
            ]

    def _seen(self) -> Mapping[str, Content]:
        """Volumes that are plugged in here."""
        return self._link.volumes

    def create_signing_request(self) -> bytes:
        """See Agent."""
        with self._link.lock:
            self._enter("create_signing_request")
            return b"-----BEGIN CERTIFICATE REQUEST-----\n"

    def adopt_identity(self, certificate_pem: bytes) -> None:
        """See Agent."""
        with self._link.lock:
            self._enter("adopt_identity")
            self.adopted_pem = certificate_pem

    def vacate(self) -> None:
        """See Agent. Who calls with which epoch, only a World knows."""
        with self._link.lock:
            self._enter("vacate")
            self.identity = replace(self.identity, epoch=self.identity.epoch + 1)
            for kept in (self._works, self._transfers):
                kept.clear()

    def start_job(self, request: agent_pb2.StartJobRequest) -> agent_pb2.Job:
        """See Agent."""
        with self._link.lock:
            self._enter("start_job")
            kind = request.WhichOneof("spec")
            if not request.request_id or kind is None:
                raise UsageError("REQUEST_INVALID", "a job needs a request_id and a kind")
            for work in self._works.values():
                if work.job.request_id == request.request_id:
                    return self._shown(work)
            work = self._prepare(request, kind)
            self._works[work.job.id] = work
            return self._shown(work)

    def get_job(self, job_id: str) -> agent_pb2.Job:
        """See Agent."""
        with self._link.lock:
            self._enter("get_job")
            return self._shown(self._work(job_id))

    def list_jobs(self) -> list[agent_pb2.Job]:
        """See Agent."""
        with self._link.lock:
            self._enter("list_jobs")
            return [self._shown(work) for work in self._works.values()]

    def watch_job(self, job_id: str, interval_seconds: float) -> Iterator[agent_pb2.Job]:
        """See Agent."""
        last = None
        while True:
            with self._link.lock:
                self._enter("watch_job")
                job = self._shown(self._work(job_id))
            if job != last:
                last = job
                yield job
            if job.state in FINAL:
                return
            self._link.clock.sleep(max(interval_seconds, 0.001))

    def update_job(
        self, job_id: str, *, limit_bytes_per_second: int | None = None, paused: bool | None = None
    ) -> agent_pb2.Job:
        """See Agent."""
        with self._link.lock:
            self._enter("update_job")
            work = self._work(job_id)
            if self.identity.role is not Role.SOURCE or not work.transfer_id:
                raise UsageError("NOT_ADJUSTABLE", "only a copy job has a limit and a pause")
            if limit_bytes_per_second is not None:
                work.limit_bytes_per_second = limit_bytes_per_second
            if paused is not None and not work.ended:
                states = (agent_pb2.JOB_STATE_RUNNING, agent_pb2.JOB_STATE_PAUSED)
                work.job.state = states[paused]
            return self._shown(work)

    def cancel_job(self, job_id: str) -> agent_pb2.Job:
        """See Agent."""
        with self._link.lock:
            self._enter("cancel_job")
            work = self._work(job_id)
            end(work, CancelledError("JOB_CANCELLED", "cancelled"))
            return self._shown(work)

    def read_manifest(self, transfer_id: str, first_chunk: int) -> Iterator[tuple[int, bytes]]:
        """See Agent."""
        with self._link.lock:
            self._enter("read_manifest")
            transfer = replace(self._transfer(transfer_id))
        yield from transfer.runs(first_chunk)

    def write_manifest(self, transfer_id: str, runs: Iterable[tuple[int, bytes]]) -> int:
        """See Agent."""
        with self._link.lock:
            self._enter("write_manifest")
            if any(work.transfer_id == transfer_id for work in self.running()):
                raise BusyError("BUSY", f"transfer {transfer_id} is running")
            digests = b""
            for first_chunk, run in runs:
                if first_chunk * DIGEST_BYTES != len(digests):
                    raise UsageError("MANIFEST_GAP", f"the manifest has no chunk {first_chunk}")
                digests += run
            transfer = self._transfers.setdefault(transfer_id, Transfer())
            transfer.take(digests)
            return transfer.chunks

    def probe_peer(
        self, addresses: Sequence[str], timeout_seconds: float
    ) -> list[agent_pb2.PeerReach]:
        """See Agent."""
        with self._link.lock:
            self._enter("probe_peer")
            if not 1 <= len(addresses) <= 16:
                raise UsageError("OUT_OF_RANGE", f"{len(addresses)} addresses")
            return [self._reach(address) for address in addresses]

    def _reach(self, address: str) -> agent_pb2.PeerReach:
        reach = agent_pb2.PeerReach(address=address)
        other = Role.SINK if self.identity.role is Role.SOURCE else Role.SOURCE
        found = self._link.find_agent(address, other)
        if found is None or found.down or found.identity.role is self.identity.role:
            error = UnreachableError("AGENT_UNREACHABLE", f"no connection to {address}")
            reach.error.CopyFrom(to_proto(error))
        else:
            reach.reachable = True
            reach.latency.FromMicroseconds(500)
        return reach

    def measure_link(
        self, address: str, channels: int, seconds: float
    ) -> agent_pb2.MeasureLinkResponse:
        """See Agent. It carries what the world's copies do."""
        with self._link.lock:
            self._enter("measure_link")
            if not (address and 0 <= channels <= 16 and 0 < seconds <= 10):
                raise UsageError("OUT_OF_RANGE", f"{channels} channels for {seconds} s")
            if self.running():
                raise BusyError("BUSY", "a job is at work here")
            reach = self._reach(address)
            if not reach.reachable:
                return agent_pb2.MeasureLinkResponse(error=reach.error)
            other = Role.SINK if self.identity.role is Role.SOURCE else Role.SOURCE
            peer = self._link.find_agent(address, other)
            if peer is not None and peer.running():
                return agent_pb2.MeasureLinkResponse(error=to_proto(BusyError("BUSY", "there")))
            rate = int(self._link.bytes_per_second)
            return agent_pb2.MeasureLinkResponse(
                bytes_per_second=rate, received_bytes=min(round(rate * seconds), 256 * MIB)
            )

    def relay(self, told: Iterator[bytes]) -> Iterator[bytes]:
        """See Agent. No bytes pass."""
        del told
        with self._link.lock:
            self._enter("relay")
            self.lent.append(self)
        try:
            self._hung_up.wait()
        finally:
            with self._link.lock:
                self.lent.remove(self)
        yield from ()

    def dial(self) -> "MemoryAgent":
        """Another connection to it, which is closed for itself."""
        other = copy.copy(self)
        other._hung_up = threading.Event()
        return other

    def close(self) -> None:
        """See Agent."""
        self._hung_up.set()

    def _enter(self, verb: str) -> None:
        self.calls.append(verb)
        for fault in [fault for fault in self._faults if fault.verb == verb]:
            if fault.after_calls == 0:
                self._faults.remove(fault)
                raise fault.error
            fault.after_calls -= 1
        if self.down:
            raise UnreachableError("AGENT_UNREACHABLE", f"no connection to {self.address}")
        for agent in self._link.agents.values():
            agent.settle()

    def settle(self) -> None:
        """Let every running job do what it could since it was last looked at."""
        now = self._link.clock.monotonic()
        for work in self.running():
            seconds, work.moved_at = now - work.moved_at, now
            if work.job.state == agent_pb2.JOB_STATE_RUNNING and not self.down:
                try:
                    work.advance(seconds)
                except BlockferryError as error:
                    end(work, error)

    @property
    def works(self) -> list[Work]:
        """Its jobs, oldest first."""
        return list(self._works.values())

    def running(self) -> list[Work]:
        return [work for work in self.works if not work.ended]

    def _work(self, job_id: str) -> Work:
        if job_id not in self._works:
            raise NotFoundError("JOB_NOT_FOUND", f"no job {job_id}")
        return self._works[job_id]

    def _transfer(self, transfer_id: str) -> Transfer:
        if transfer_id not in self._transfers:
            raise NotFoundError("TRANSFER_NOT_FOUND", f"no transfer {transfer_id}")
        return self._transfers[transfer_id]

    def _shown(self, work: Work) -> agent_pb2.Job:
        self.settle()
        job = agent_pb2.Job()
        job.CopyFrom(work.job)
        return job

    def _prepare(self, request: agent_pb2.StartJobRequest, kind: str) -> Work:
        spec = getattr(request, kind)
        device = spec.device.volume_id or spec.device.path
        if device not in self._link.volumes:
            raise NotFoundError("DEVICE_NOT_FOUND", f"no device {device!r}")
        transfer_id = getattr(spec, "transfer_id", "")
        for other in self.running():
            if other.device == device or (transfer_id and other.transfer_id == transfer_id):
                raise BusyError("BUSY", f"{device} is in use by job {other.job.id}")
        job = agent_pb2.Job(
            id=uuid.uuid4().hex, request_id=request.request_id, state=agent_pb2.JOB_STATE_RUNNING
        )
        job.start_time.GetCurrentTime()
        work = Work(job, device, transfer_id)
        work.moved_at = self._link.clock.monotonic()
        kept = self._transfers.get(transfer_id, Transfer())
        prepare(self._link, self.identity.role, work, kind, spec, kept)
        if kind in {"copy", "receive"}:
            self._transfers[transfer_id] = kept
        if kind == "copy":
            self._link.sources[transfer_id] = device
        return work
