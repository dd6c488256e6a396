"""Real agents as child processes, and a controller's connection to each."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType

import grpc

from blockferry.identity import Identity, Role
from blockferry.tls import dial_options
from blockferry.v1 import agent_pb2, agent_pb2_grpc
from blockferry_controller.migration.authority import Authority, Credentials

MIGRATION_ID = "m-test"
_START_SECONDS = 15.0
_STOP_SECONDS = 20.0
_FINAL = (
    agent_pb2.JOB_STATE_SUCCEEDED,
    agent_pb2.JOB_STATE_FAILED,
    agent_pb2.JOB_STATE_CANCELLED,
)


@dataclass
class AgentProcess:
    """One agent, on loopback unless told; its directory survives its process.

    Attributes:
        within: What goes before its command, for example `ip netns exec NAME`.
    """

    role: Role
    directory: Path
    authority: Authority
    options: dict[str, object] = field(default_factory=dict)
    process: subprocess.Popen[bytes] | None = None
    port: int = 0
    host: str = "127.0.0.1"
    within: Sequence[str] = ()
    channels: ExitStack = field(default_factory=ExitStack)

    @property
    def identity(self) -> Identity:
        return Identity(MIGRATION_ID, self.role, 1)

    @property
    def address(self) -> str:
        return f"{self.host}:{self.port}"

    def configure(self) -> None:
        """Write what cloud-init would: configuration, bootstrap identity, root."""
        self.directory.mkdir(parents=True)
        bootstrap = self.authority.bootstrap(self.role, 1)
        (self.directory / "bootstrap.crt").write_bytes(bootstrap.certificate_pem)
        (self.directory / "bootstrap.key").write_bytes(bootstrap.key_pem)
        (self.directory / "authority.crt").write_bytes(self.authority.migration_root_pem)
        self._write_config()

    def _write_config(self) -> None:
        config = {
            "version": 1,
            "migration_id": MIGRATION_ID,
            "role": self.role.value,
            "epoch": 1,
            "listen": [self.host],
            "port": self.port,
            "certificate": "bootstrap.crt",
            "key": "bootstrap.key",
            "authority": "authority.crt",
            "state_directory": "state",
            "exit_with_parent": True,
            **self.options,
        }
        (self.directory / "agent.json").write_text(json.dumps(config))

    def start(self) -> None:
        """Start the process and wait until it listens; the port stays the same."""
        self._write_config()
        told = self.directory / "state" / "listening.json"
        told.unlink(missing_ok=True)
        with (self.directory / "log").open("ab") as log:
            self.process = subprocess.Popen(
                [
                    *self.within,
                    *(sys.executable, "-m", "blockferry_agent"),
                    *("serve", "--config", str(self.directory / "agent.json")),
                ],
                stderr=log,
            )
        until = time.monotonic() + _START_SECONDS
        while not told.exists():
            assert self.process.poll() is None, self.log()
            assert time.monotonic() < until, self.log()
            time.sleep(0.01)
        self.port = json.loads(told.read_text())["port"]

    def kill(self) -> None:
        """SIGKILL."""
        assert self.process is not None
        self.process.kill()
        self.process.wait(_STOP_SECONDS)

    def stop(self) -> int:
        """SIGTERM; the exit code."""
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(_STOP_SECONDS)

    def close(self) -> None:
        """End everything."""
        self.channels.close()
        if self.process is not None and self.process.poll() is None:
            self.kill()

    def log(self) -> str:
        """What the agent said so far."""
        return (self.directory / "log").read_text()

    def channel(self, credentials: Credentials | None, *, bootstrap: bool = False) -> grpc.Channel:
        """A connection with the given client identity, or none."""
        root = self.authority.bootstrap_root_pem if bootstrap else self.authority.migration_root_pem
        name = self.identity.bootstrap_server_name if bootstrap else self.identity.server_name
        tls = grpc.ssl_channel_credentials(
            root,
            credentials.key_pem if credentials else None,
            credentials.certificate_pem if credentials else None,
        )
        channel = grpc.secure_channel(self.address, tls, options=dial_options(name))
        self.channels.callback(channel.close)
        return channel

    def stub(self, epoch: int = 1, *, bootstrap: bool = False) -> agent_pb2_grpc.AgentServiceStub:
        """The controller's stub."""
        channel = self.channel(self.authority.controller(epoch), bootstrap=bootstrap)
        return agent_pb2_grpc.AgentServiceStub(channel)

    def adopt(self, epoch: int = 1, *, bootstrap: bool = True) -> None:
        """Give it an identity of its own."""
        stub = self.stub(epoch, bootstrap=bootstrap)
        request = stub.CreateSigningRequest(
            agent_pb2.CreateSigningRequestRequest(), timeout=10
        ).signing_request_pem
        certificate = self.authority.sign(request, self.role, epoch)
        stub.AdoptIdentity(agent_pb2.AdoptIdentityRequest(certificate_pem=certificate), timeout=10)

    def start_job(self, request: agent_pb2.StartJobRequest) -> agent_pb2.Job:
        return self.stub().StartJob(request, timeout=20).job

    def watch(self, job_id: str, *, timeout: float = 50) -> Iterator[agent_pb2.Job]:
        request = agent_pb2.WatchJobRequest(job_id=job_id)
        request.interval.FromMilliseconds(50)
        for response in self.stub().WatchJob(request, timeout=timeout):
            yield response.job

    def until(
        self, job_id: str, reached: Callable[[agent_pb2.Job], bool], *, timeout: float = 40
    ) -> agent_pb2.Job:
        """Watch until a condition holds."""
        for job in self.watch(job_id, timeout=timeout):
            if reached(job):
                return job
        raise AssertionError(f"the job ended before: {job}")

    def finish(self, job_id: str, *, timeout: float = 50) -> agent_pb2.Job:
        """Watch to the end."""
        *_, job = self.watch(job_id, timeout=timeout)
        assert job.state in _FINAL
        return job


@dataclass
class Pair:
    """A source and a sink of one migration, adopted; use as a context manager."""

    directory: Path
    options: dict[str, object] = field(default_factory=dict)
    sink_dials: bool = False
    sink_within: Sequence[str] = ()

    def __post_init__(self) -> None:
        authority = Authority.create(MIGRATION_ID)
        self.source = AgentProcess(Role.SOURCE, self.directory / "source", authority, self.options)
        self.sink = AgentProcess(Role.SINK, self.directory / "sink", authority, self.options)
        self.sink.within = self.sink_within

    def __enter__(self) -> Pair:
        try:
            for agent in (self.source, self.sink):
                agent.configure()
                agent.start()
                agent.adopt()
        except BaseException:
            self._close()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._close()

    def _close(self) -> None:
        self.source.close()
        self.sink.close()

    def receive(
        self,
        path: Path,
        size: int,
        *,
        request_id: str | None = None,
        verify: agent_pb2.Verify.ValueType = agent_pb2.VERIFY_READBACK,
        identity: str = "a source",
        only: Sequence[agent_pb2.ByteRange] = (),
    ) -> agent_pb2.Job:
        spec = agent_pb2.ReceiveSpec(
            only=only,
            transfer_id=MIGRATION_ID,
            device=agent_pb2.DeviceSelector(path=str(path)),
            size_bytes=size,
            verify=verify,
            source_identity=identity,
            source_addresses=[self.source.address] if self.sink_dials else [],
        )
        return self.sink.start_job(
            agent_pb2.StartJobRequest(request_id=request_id or uuid.uuid4().hex, receive=spec)
        )

    def copy(
        self,
        path: Path,
        *,
        request_id: str | None = None,
        limit: int = 0,
        channels: int = 0,
        compression: agent_pb2.Compression | None = None,
        only: Sequence[agent_pb2.ByteRange] = (),
    ) -> agent_pb2.Job:
        spec = agent_pb2.CopySpec(
            only=only,
            transfer_id=MIGRATION_ID,
            device=agent_pb2.DeviceSelector(path=str(path)),
            size_bytes=path.stat().st_size,
            sink_addresses=[] if self.sink_dials else [self.sink.address],
            limit_bytes_per_second=limit,
            channels=channels,
            compression=compression,
        )
        return self.source.start_job(
            agent_pb2.StartJobRequest(request_id=request_id or uuid.uuid4().hex, copy=spec)
        )

    def transfer(self, source: Path, sink: Path) -> tuple[agent_pb2.Job, agent_pb2.Job]:
        """Copy one file to another; (copy job, receive job), both ended."""
        receive = self.receive(sink, source.stat().st_size)
        copy = self.copy(source)
        return self.source.finish(copy.id), self.sink.finish(receive.id)
