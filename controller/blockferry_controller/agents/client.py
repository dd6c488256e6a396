"""The agent over gRPC: the only module of the controller that knows grpc.

Rules:
* Every call has a deadline. Unary calls that found nobody (UNAVAILABLE) are
  repeated with growing, jittered pauses: all calls of the service are idempotent.
* A stream is taken up again where it broke, for as long as the agent is heard
  at least once in `progress_seconds`. A job that stands still is not silence:
  whether it should stand still is for the migration to judge.
* What leaves this module is ours: blockferry.errors, never a grpc type.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import timedelta
from typing import Final, Protocol, TypeVar

import grpc
from msgspec import Struct

from blockferry.errors import BlockferryError, DeadlineError, UnreachableError
from blockferry.identity import Identity
from blockferry.limits import DIGEST_BYTES, MANIFEST_RUN_CHUNKS
from blockferry.tls import dial_options
from blockferry.v1 import agent_pb2, agent_pb2_grpc
from blockferry.wire import from_rpc_error
from blockferry_controller.agents.credentials import Credentials
from blockferry_controller.clock import Backoff, Clock, SystemClock

FINAL_STATES: Final = frozenset(
    {
        agent_pb2.JOB_STATE_SUCCEEDED,
        agent_pb2.JOB_STATE_FAILED,
        agent_pb2.JOB_STATE_CANCELLED,
    }
)

_CHANNEL_OPTIONS: Final = (
    # gRPC's own pauses between connection attempts grow to two minutes; an agent
    # that has just come up should be found within seconds.
    ("grpc.initial_reconnect_backoff_ms", 200),
    ("grpc.max_reconnect_backoff_ms", 2_000),
    # How long one attempt may take (its name notwithstanding): less than a call's
    # deadline, so that packets dropped by a security group read as UNAVAILABLE.
    ("grpc.min_reconnect_backoff_ms", 4_000),
)

_STREAMS_PER_SILENCE: Final = 3
"""A quiet stream is opened anew this often per `progress_seconds`.

The agent answers a new WatchJob at once, so a paused job is not taken for a dead agent.
"""

_Request_contra = TypeVar("_Request_contra", contravariant=True)
_Response_co = TypeVar("_Response_co", covariant=True)
_Message = TypeVar("_Message")


class Patience(Struct, frozen=True):
    """How long an agent is waited for, in seconds.

    Attributes:
        call_seconds: Deadline of one unary call.
        retry_seconds: How long a unary call that reaches nobody is repeated;
            0 tries once.
        progress_seconds: How long nothing may be heard while a stream is open.
    """

    call_seconds: float = 10.0
    retry_seconds: float = 15.0
    progress_seconds: float = 60.0


class _Unary(Protocol[_Request_contra, _Response_co]):
    def __call__(self, request: _Request_contra, /, *, timeout: float) -> _Response_co: ...


class _Stream(Protocol[_Response_co]):
    def __iter__(self) -> Iterator[_Response_co]: ...
    def cancel(self) -> object: ...


class GrpcAgent:
    """An Agent (see agents.port) behind one channel. Thread-safe.

    Attributes:
        address: Where it is, `host:port`.
    """

    def __init__(
        self, channel: grpc.Channel, address: str, patience: Patience, clock: Clock
    ) -> None:
        self._channel = channel
        self._stub = agent_pb2_grpc.AgentServiceStub(channel)
        self.address = address
        self._patience = patience
        self._clock = clock
        self._closed = False

    @classmethod
    def connect(
        cls,
        address: str,
        *,
        identity: Identity,
        credentials: Credentials,
        root_pem: bytes,
        bootstrap: bool = False,
        patience: Patience | None = None,
        clock: Clock | None = None,
    ) -> "GrpcAgent":
        """An agent at `address`; returns at once, the first call connects.

        Args:
            address: `host:port`, IPv6 in brackets.
            identity: The agent's, which its certificate must name; its epoch is not
                compared, since an agent keeps its own over a change of controller.
            credentials: The controller's.
            root_pem: The only root that may have signed the agent's certificate.
            bootstrap: Expect what cloud-init carried instead of an adopted identity.
            patience: None for the defaults.
            clock: None for the system's.
        """
        name = identity.bootstrap_server_name if bootstrap else identity.server_name
        channel = grpc.secure_channel(
            address,
            grpc.ssl_channel_credentials(
                root_certificates=root_pem,
                private_key=credentials.key_pem,
                certificate_chain=credentials.certificate_pem,
            ),
            options=[*dial_options(name), *_CHANNEL_OPTIONS],
        )
        return cls(channel, address, patience or Patience(), clock or SystemClock())

    def describe(self) -> agent_pb2.DescribeResponse:
        """See Agent."""
        return self._call(self._stub.Describe, agent_pb2.DescribeRequest())

    def list_block_devices(self) -> list[agent_pb2.BlockDevice]:
        """See Agent."""
        request = agent_pb2.ListBlockDevicesRequest()
        return list(self._call(self._stub.ListBlockDevices, request).block_devices)

    def create_signing_request(self) -> bytes:
        """See Agent."""
        request = agent_pb2.CreateSigningRequestRequest()
        return self._call(self._stub.CreateSigningRequest, request).signing_request_pem

    def adopt_identity(self, certificate_pem: bytes) -> None:
        """See Agent."""
        request = agent_pb2.AdoptIdentityRequest(certificate_pem=certificate_pem)
        self._call(self._stub.AdoptIdentity, request)

    def vacate(self) -> None:
        """See Agent."""
        self._call(self._stub.Vacate, agent_pb2.VacateRequest())

    def start_job(self, request: agent_pb2.StartJobRequest) -> agent_pb2.Job:
        """See Agent."""
        return self._call(self._stub.StartJob, request).job

    def get_job(self, job_id: str) -> agent_pb2.Job:
        """See Agent."""
        return self._call(self._stub.GetJob, agent_pb2.GetJobRequest(job_id=job_id)).job

    def list_jobs(self) -> list[agent_pb2.Job]:
        """See Agent."""
        return list(self._call(self._stub.ListJobs, agent_pb2.ListJobsRequest()).jobs)

    def watch_job(self, job_id: str, interval_seconds: float) -> Iterator[agent_pb2.Job]:
        """See Agent. Survives broken connections.

        Raises:
            UnreachableError: AGENT_SILENT, nothing heard for `progress_seconds`.
        """
        request = agent_pb2.WatchJobRequest(job_id=job_id)
        request.interval.FromTimedelta(timedelta(seconds=interval_seconds))
        silence = self._silence()
        while True:
            for response in self._stream(
                lambda timeout: self._stub.WatchJob(request, timeout=timeout), silence
            ):
                yield response.job
                if response.job.state in FINAL_STATES:
                    return
            self._wait_or_give_up(silence, "it ended the stream of a job that has not ended")

    def update_job(
        self, job_id: str, *, limit_bytes_per_second: int | None = None, paused: bool | None = None
    ) -> agent_pb2.Job:
        """See Agent."""
        request = agent_pb2.UpdateJobRequest(
            job_id=job_id, limit_bytes_per_second=limit_bytes_per_second, paused=paused
        )
        return self._call(self._stub.UpdateJob, request).job

    def cancel_job(self, job_id: str) -> agent_pb2.Job:
        """See Agent."""
        return self._call(self._stub.CancelJob, agent_pb2.CancelJobRequest(job_id=job_id)).job

    def read_manifest(self, transfer_id: str, first_chunk: int) -> Iterator[tuple[int, bytes]]:
        """See Agent. Goes on behind the last run after a broken connection."""
        request = agent_pb2.ReadManifestRequest(transfer_id=transfer_id, first_chunk=first_chunk)
        for run in self._stream(
            lambda timeout: self._stub.ReadManifest(request, timeout=timeout), self._silence()
        ):
            yield run.first_chunk, run.digests
            request.first_chunk = run.first_chunk + len(run.digests) // DIGEST_BYTES

    def write_manifest(self, transfer_id: str, runs: Iterable[tuple[int, bytes]]) -> int:
        """See Agent. `runs` is read once: after an error the caller repeats the call.

        Raises:
            DeadlineError: AGENT_STALLED, it took nothing for `progress_seconds`.
        """
        requests = _Counted(_write_requests(transfer_id, runs))
        call = self._stub.WriteManifest.future(requests)
        taken = -1
        while requests.count != taken:
            taken = requests.count
            try:
                return call.result(timeout=self._patience.progress_seconds).chunk_count
            except grpc.FutureTimeoutError:
                continue
            except grpc.RpcError as error:
                raise requests.error or self._ours(error) from error
        call.cancel()
        raise DeadlineError(
            "AGENT_STALLED",
            f"the agent at {self.address} took none of the manifest for "
            f"{self._patience.progress_seconds:.0f} s; try again",
            address=self.address,
        )

    def probe_peer(
        self, addresses: Sequence[str], timeout_seconds: float
    ) -> list[agent_pb2.PeerReach]:
        """See Agent."""
        request = agent_pb2.ProbePeerRequest(addresses=addresses)
        request.timeout.FromTimedelta(timedelta(seconds=timeout_seconds))
        longest = timeout_seconds + self._patience.call_seconds
        return list(self._call(self._stub.ProbePeer, request, longest).reaches)

    def measure_link(
        self, address: str, channels: int, seconds: float
    ) -> agent_pb2.MeasureLinkResponse:
        """See Agent."""
        request = agent_pb2.MeasureLinkRequest(address=address, channels=channels)
        request.duration.FromTimedelta(timedelta(seconds=seconds))
        # Beside the time that its own dial takes.
        longest = seconds + 2 * self._patience.call_seconds
        return self._call(self._stub.MeasureLink, request, longest)

    def relay(self, told: Iterator[bytes]) -> Iterator[bytes]:
        """See Agent. A dead agent is noticed by the channel's keepalive."""
        requests = (agent_pb2.RelayRequest(data=segment) for segment in told)
        call = self._begin(lambda _: self._stub.Relay(requests), 0.0)
        try:
            for response in call:
                yield response.data
        except grpc.RpcError as error:
            raise self._ours(error) from error
        finally:
            call.cancel()

    def close(self) -> None:
        """See Agent. Whoever still waits for an answer gets AGENT_CLOSED."""
        self._closed = True
        self._channel.close()

    def _call(
        self,
        method: _Unary[_Request_contra, _Response_co],
        request: _Request_contra,
        timeout_seconds: float | None = None,
    ) -> _Response_co:
        timeout = timeout_seconds or self._patience.call_seconds
        backoff = Backoff(self._clock, self._patience.retry_seconds)
        while True:
            try:
                return method(request, timeout=timeout)
            except grpc.RpcError as error:
                ours = self._ours(error)
                if not isinstance(ours, UnreachableError) or not backoff.pause():
                    raise ours from error

    def _stream(
        self, begin: Callable[[float], _Stream[_Message]], silence: Backoff
    ) -> Iterator[_Message]:
        """Messages of `begin(timeout)`, begun anew whenever it breaks or is quiet."""
        timeout = self._patience.progress_seconds / _STREAMS_PER_SILENCE
        while True:
            call = self._begin(begin, timeout)
            try:
                for message in call:
                    yield message
                    silence.reset()
                return
            except grpc.RpcError as error:
                ours = self._ours(error)
                if not ours.meaning.retryable:
                    raise ours from error
                reason = ours.message
            finally:
                call.cancel()
            self._wait_or_give_up(silence, reason)

    def _begin(
        self, begin: Callable[[float], _Stream[_Message]], timeout: float
    ) -> _Stream[_Message]:
        try:
            return begin(timeout)
        except ValueError as error:  # what gRPC raises on a channel that we closed
            if not self._closed:
                raise
            raise UnreachableError(
                "AGENT_CLOSED",
                f"the connection to {self.address} was closed",
                address=self.address,
            ) from error

    def _silence(self) -> Backoff:
        return Backoff(self._clock, self._patience.progress_seconds)

    def _wait_or_give_up(self, silence: Backoff, reason: str) -> None:
        if not silence.pause():
            raise UnreachableError(
                "AGENT_SILENT",
                f"the agent at {self.address} was not heard for "
                f"{self._patience.progress_seconds:.0f} s: {reason}",
                address=self.address,
            )

    def _ours(self, error: grpc.RpcError) -> BlockferryError:
        return from_rpc_error(error, address=self.address)


class _Counted(Iterator[agent_pb2.WriteManifestRequest]):
    """Counts what gRPC has taken, and keeps the error of whoever made it.

    gRPC reads it in a thread of its own, and tells an error there only as UNKNOWN.
    """

    def __init__(self, requests: Iterator[agent_pb2.WriteManifestRequest]) -> None:
        self._requests = requests
        self.count = 0
        self.error: Exception | None = None

    def __next__(self) -> agent_pb2.WriteManifestRequest:
        try:
            request = next(self._requests)
        except StopIteration:
            raise
        except Exception as error:
            self.error = error
            raise
        self.count += 1
        return request


def _write_requests(
    transfer_id: str, runs: Iterable[tuple[int, bytes]]
) -> Iterator[agent_pb2.WriteManifestRequest]:
    """One message a run, longer ones cut to what a message may hold."""
    step = MANIFEST_RUN_CHUNKS * DIGEST_BYTES
    for first_chunk, digests in runs:
        for start in range(0, len(digests), step):
            yield agent_pb2.WriteManifestRequest(
                transfer_id=transfer_id,
                first_chunk=first_chunk + start // DIGEST_BYTES,
                digests=digests[start : start + step],
            )
