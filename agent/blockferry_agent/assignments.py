"""Turns what a controller asks for into a flow that is ready to run.

Everything that can be checked is checked here, before the first byte: the
caller gets the error as the answer to StartJob, and nothing was changed.
"""

import stat
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, Protocol

from blockferry.errors import CancelledError, PreconditionError, UsageError
from blockferry.identity import Role
from blockferry.limits import MAX_CHANNELS
from blockferry.v1 import agent_pb2
from blockferry_agent import host
from blockferry_agent.blockdev import open_device
from blockferry_agent.codec import Compression
from blockferry_agent.excerpt import Excerpt
from blockferry_agent.ledger import Ledger, TransferIdentity
from blockferry_agent.link import Dial
from blockferry_agent.manifest import Manifest
from blockferry_agent.ports import BlockDevice, Clock
from blockferry_agent.scan import DigestFlow, ProbeFlow
from blockferry_agent.sink import ReceiveFlow, ReceivePlan
from blockferry_agent.source import CopyFlow, CopyPlan
from blockferry_agent.transfers import TransferFiles
from blockferry_agent.write_probe import SECONDS_MAX as WRITE_PROBE_SECONDS_MAX
from blockferry_agent.write_probe import WriteProbeFlow

_PROBE_SECONDS: Final = 2.0
_PROBE_SECONDS_MAX: Final = 60.0

_MODES: Final = {
    agent_pb2.Compression.MODE_UNSPECIFIED: "auto",
    agent_pb2.Compression.MODE_AUTO: "auto",
    agent_pb2.Compression.MODE_NONE: "none",
    agent_pb2.Compression.MODE_ZSTD: "zstd",
}


class Flow(Protocol):
    """A job's inside."""

    def run(self) -> None:
        """Do all of it, in the caller's thread. Raises BlockferryError."""
        ...

    def cancel(self, reason: CancelledError) -> None:
        """Make `run` stop in order and raise `reason`. Any thread; idempotent."""
        ...

    def report(self, job: agent_pb2.Job) -> None:
        """Fill in progress and results as they are now. Any thread, any time."""
        ...


@dataclass(frozen=True, slots=True)
class Prepared:
    """A flow with what it holds open.

    Attributes:
        flow: To be run once.
        manifest: Of the transfer; None for jobs that have none, or of a part only.
        release: Closes device and files; called once, after `run`.
    """

    flow: Flow
    manifest: Manifest | None
    release: Callable[[], None]


@dataclass(frozen=True, slots=True)
class Workshop:
    """Where flows are made."""

    role: Role
    files: TransferFiles
    dial: Dial
    clock: Clock
    dead_seconds: float

    def prepare(self, request: agent_pb2.StartJobRequest, path: Path) -> Prepared:
        """Open everything and build the flow for `path`, the device that was named.

        Raises:
            BlockferryError: it cannot be done; nothing was changed.
        """
        with ExitStack() as held:
            kind = request.WhichOneof("spec")
            manifest: Manifest | None = None
            if kind == "copy":
                flow, manifest = self._copy(request.copy, path, held)
            elif kind == "receive":
                flow, manifest = self._receive(request.receive, path, held)
            elif kind == "digest":
                flow = self._digest(request.digest, path, held)
            elif kind == "write_probe":
                flow = self._write_probe(request.write_probe, path, held)
            else:
                flow = self._probe(request.probe, path, held)
            return Prepared(flow, manifest, held.pop_all().close)

    def _copy(
        self, spec: agent_pb2.CopySpec, path: Path, held: ExitStack
    ) -> tuple[Flow, Manifest | None]:
        self._must_be(Role.SOURCE)
        cpus = host.cpu_count()
        plan = CopyPlan(
            transfer_id=spec.transfer_id,
            size_bytes=spec.size_bytes,
            sink_addresses=tuple(spec.sink_addresses),
            compression=_compression(spec.compression),
            channels=count_channels(spec.channels, cpus),
            limit_bytes_per_second=_not_negative("limit_bytes_per_second", spec),
            workers=max(2, cpus),
        )
        device = _held(open_device(path, writable=False), held)
        if device.size_bytes != spec.size_bytes:
            raise PreconditionError(
                "DEVICE_SIZE_DIFFERS",
                f"{path} has {device.size_bytes} bytes, not the {spec.size_bytes} that were to "
                "be copied; plan again with its size of now.",
                path=path,
                device_bytes=device.size_bytes,
                size_bytes=spec.size_bytes,
            )
        manifest = self.files.manifest(spec.transfer_id, spec.size_bytes)
        held.callback(manifest.close)
        if spec.only:
            return self._repair_source(spec, plan, device, manifest, held), None
        return CopyFlow(plan, device, manifest, self.dial, self.clock), manifest

    def _repair_source(
        self,
        spec: agent_pb2.CopySpec,
        plan: CopyPlan,
        device: BlockDevice,
        manifest: Manifest,
        held: ExitStack,
    ) -> Flow:
        """Send some ranges again, as long as they read as they did."""
        excerpt = Excerpt(device, _ranges(spec), spec.size_bytes)
        sealed = self.files.repair_manifest(spec.transfer_id, excerpt.size_bytes)
        held.callback(sealed.close)
        sealed.seal(excerpt, excerpt.digests_in(manifest))
        plan = replace(plan, size_bytes=excerpt.size_bytes)
        return CopyFlow(plan, excerpt, sealed, self.dial, self.clock)

    def _receive(
        self, spec: agent_pb2.ReceiveSpec, path: Path, held: ExitStack
    ) -> tuple[Flow, Manifest | None]:
        self._must_be(Role.SINK)
        size = _not_negative("size_bytes", spec)
        device = _destination(path, size, held)
        identity = TransferIdentity(
            source=spec.source_identity,
            device=_device_identity(spec.device, path),
            size_bytes=size,
            boot_id=host.boot_id(),
        )
        if spec.only:
            excerpt = Excerpt(device, _ranges(spec), size)
            ledger = self._repair_ledger(spec.transfer_id, identity, excerpt)
            device, size = excerpt, excerpt.size_bytes
        else:
            ledger = Ledger(
                identity,
                self.files.journal(spec.transfer_id),
                self.files.manifest(spec.transfer_id, size),
                self.clock,
                known_committed_bytes=_not_negative("known_committed_bytes", spec),
            )
        held.callback(ledger.close)
        plan = ReceivePlan(
            transfer_id=spec.transfer_id,
            size_bytes=size,
            check_digests=spec.verify != agent_pb2.VERIFY_NONE,
            read_back=spec.verify in (agent_pb2.VERIFY_UNSPECIFIED, agent_pb2.VERIFY_READBACK),
            dead_seconds=self.dead_seconds,
            threads=max(2, host.cpu_count()),
            source_addresses=tuple(spec.source_addresses),
            channels=count_channels(spec.channels, host.cpu_count()),
        )
        flow = ReceiveFlow(plan, device, ledger, self.clock, self.dial)
        return flow, None if spec.only else ledger.manifest

    def _repair_ledger(
        self, transfer_id: str, identity: TransferIdentity, excerpt: Excerpt
    ) -> Ledger:
        """A ledger of its own: a repair that was struck goes on with the same ranges only."""
        size = excerpt.size_bytes
        source = f"{identity.source} in {excerpt.fingerprint()}"
        return Ledger(
            replace(identity, source=source, size_bytes=size),
            self.files.repair_journal(transfer_id),
            self.files.repair_manifest(transfer_id, size),
            self.clock,
            known_committed_bytes=0,
        )

    def _digest(self, spec: agent_pb2.DigestSpec, path: Path, held: ExitStack) -> Flow:
        device = _held(open_device(path, writable=False), held)
        size = _not_negative("size_bytes", spec) or device.size_bytes
        if size > device.size_bytes:
            raise UsageError(
                "OUT_OF_RANGE",
                f"{path} has {device.size_bytes} bytes, {size} cannot be digested.",
                path=path,
            )
        return DigestFlow(device, size, threads=max(2, host.cpu_count()))

    def _probe(self, spec: agent_pb2.ProbeSpec, path: Path, held: ExitStack) -> Flow:
        device = _held(open_device(path, writable=False), held)
        return ProbeFlow(device, _probe_seconds(spec, _PROBE_SECONDS_MAX), self.clock)

    def _write_probe(self, spec: agent_pb2.WriteProbeSpec, path: Path, held: ExitStack) -> Flow:
        """Only where nothing can be lost: a volume of ours that no copy has come to yet."""
        self._must_be(Role.SINK)
        if not spec.device.volume_id:
            raise UsageError(
                "VOLUME_ID_NEEDED",
                f"{path} is written by the copy and by nothing before it; only a volume that is "
                "named by its id can be measured by writing.",
                path=path,
            )
        if self.files.knows(spec.transfer_id):
            raise PreconditionError(
                "TRANSFER_BEGUN",
                f"Transfer {spec.transfer_id} has begun: what {path} holds of it is not written "
                "over to be measured. Go on with the copy.",
                transfer_id=spec.transfer_id,
            )
        seconds = _probe_seconds(spec, WRITE_PROBE_SECONDS_MAX)
        size = _not_negative("size_bytes", spec)
        return WriteProbeFlow(_destination(path, size, held), size, seconds, self.clock)

    def _must_be(self, role: Role) -> None:
        if self.role is not role:
            raise PreconditionError(
                "WRONG_ROLE", f"This agent is a {self.role.value}; ask the {role.value}."
            )


def find_device(selector: agent_pb2.DeviceSelector) -> Path:
    """The path of the device that a request names.

    Raises:
        UsageError: DEVICE_MISSING, it names none.
        NotFoundError: DEVICE_NOT_FOUND.
        PreconditionError: DEVICE_AMBIGUOUS.
    """
    if selector.volume_id:
        return host.find_by_volume_id(selector.volume_id)
    if not selector.path:
        raise UsageError("DEVICE_MISSING", "The request names no device.")
    return Path(selector.path)


def _held(device: BlockDevice, held: ExitStack) -> BlockDevice:
    held.callback(device.close)
    return device


def _destination(path: Path, size_bytes: int, held: ExitStack) -> BlockDevice:
    """The device at `path`, opened for writing. Raises DESTINATION_TOO_SMALL."""
    device = _held(open_device(path, writable=True), held)
    if device.size_bytes < size_bytes:
        raise PreconditionError(
            "DESTINATION_TOO_SMALL",
            f"{path} has {device.size_bytes} bytes, the source {size_bytes}; "
            "take a destination that is at least as large.",
            path=path,
            device_bytes=device.size_bytes,
            size_bytes=size_bytes,
        )
    return device


def _device_identity(selector: agent_pb2.DeviceSelector, path: Path) -> str:
    """The same for the same destination after a restart, another for another one."""
    if selector.volume_id:
        return f"volume:{selector.volume_id}"
    real = path.resolve()
    found = real.stat()
    kind = "device" if stat.S_ISBLK(found.st_mode) else f"file:{found.st_dev}:{found.st_ino}"
    return f"{kind}:{real}"


def _ranges(spec: agent_pb2.CopySpec | agent_pb2.ReceiveSpec) -> list[tuple[int, int]]:
    return [(one.start_bytes, one.end_bytes) for one in spec.only]


def _compression(wanted: agent_pb2.Compression) -> Compression:
    mode = _MODES.get(wanted.mode)
    if mode == "zstd":
        return Compression("zstd", wanted.level)
    if mode == "none":
        return Compression("none")
    if mode == "auto":
        return Compression("auto")
    raise UsageError("COMPRESSION_INVALID", f"There is no compression mode {wanted.mode}.")


def count_channels(wanted: int, cpus: int) -> int:
    """How many channels a transfer gets; `wanted` 0 leaves it to us.

    Raises:
        UsageError: CHANNELS_INVALID.
    """
    if not 0 <= wanted <= MAX_CHANNELS:
        raise UsageError("CHANNELS_INVALID", f"Channels must be 1 to {MAX_CHANNELS}, not {wanted}.")
    return wanted or min(4, max(2, cpus))


def _probe_seconds(spec: agent_pb2.ProbeSpec | agent_pb2.WriteProbeSpec, at_most: float) -> float:
    seconds = spec.duration.ToTimedelta().total_seconds() or _PROBE_SECONDS
    if not 0 < seconds <= at_most:
        raise UsageError("OUT_OF_RANGE", f"A probe lasts up to {at_most:.0f} s, not {seconds}.")
    return seconds


def _not_negative(
    field: str,
    spec: agent_pb2.CopySpec
    | agent_pb2.ReceiveSpec
    | agent_pb2.DigestSpec
    | agent_pb2.WriteProbeSpec,
) -> int:
    value = int(getattr(spec, field))
    if value < 0:
        raise UsageError("OUT_OF_RANGE", f"{field} is {value}, below 0.", field=field)
    return value
