"""The two services, in terms of jobs and credentials. No rule lives here."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import grpc

from blockferry import __version__
from blockferry.errors import CancelledError, UsageError
from blockferry.identity import Role
from blockferry.v1 import agent_pb2, agent_pb2_grpc, transfer_pb2
from blockferry_agent import frames, host, peer
from blockferry_agent.credentials import Credentials
from blockferry_agent.jobs import JobRegistry
from blockferry_agent.link import Dial
from blockferry_agent.relay import Relay
from blockferry_agent.trial import Bench

_ROLES = {Role.SOURCE: agent_pb2.ROLE_SOURCE, Role.SINK: agent_pb2.ROLE_SINK}

_WATCH_SECONDS = 0.5
_VACATE_SECONDS = 4.0
"""For calls, and for jobs: both have ended before, if all went well. A caller waits for 10 s."""


@dataclass(frozen=True, slots=True)
class Company:
    """Who else than the present caller speaks to this agent: seconds since each last did."""

    controller_seconds: float
    peer_seconds: float


class AgentServicer(agent_pb2_grpc.AgentServiceServicer):
    """AgentService; what each method promises stands in agent.proto."""

    def __init__(
        self,
        jobs: JobRegistry,
        credentials: Credentials,
        dial: Dial,
        relay: Relay,
        *,
        bench: Bench,
        company: Callable[[], Company],
        end_other_calls: Callable[[grpc.ServicerContext, float], None],
    ) -> None:
        self._jobs = jobs
        self._credentials = credentials
        self._dial = dial
        self._relay = relay
        self._bench = bench
        self._company = company
        self._end_other_calls = end_other_calls

    def Describe(  # noqa: N802 - names of the wire contract
        self, request: agent_pb2.DescribeRequest, context: grpc.ServicerContext
    ) -> agent_pb2.DescribeResponse:
        """Tell who and what this is."""
        own = self._credentials.identity
        response = agent_pb2.DescribeResponse(
            version=__version__,
            migration_id=own.migration_id,
            role=_ROLES[own.role],
            epoch=own.epoch,
            adopted=self._credentials.adopted,
            boot_id=host.boot_id(),
            hostname=host.hostname(),
            cpu_count=host.cpu_count(),
            memory_bytes=host.memory_bytes(),
            resident_bytes=host.resident_bytes(),
            peak_resident_bytes=host.peak_resident_bytes(),
            busy=self._jobs.busy,
        )
        response.now.GetCurrentTime()
        company = self._company()
        response.controller_silence.FromTimedelta(timedelta(seconds=company.controller_seconds))
        response.peer_silence.FromTimedelta(timedelta(seconds=company.peer_seconds))
        return response

    def ListBlockDevices(  # noqa: N802
        self, request: agent_pb2.ListBlockDevicesRequest, context: grpc.ServicerContext
    ) -> agent_pb2.ListBlockDevicesResponse:
        """List the disks."""
        return agent_pb2.ListBlockDevicesResponse(
            block_devices=[
                agent_pb2.BlockDevice(
                    path=device.path,
                    serial=device.serial,
                    size_bytes=device.size_bytes,
                    logical_block_bytes=device.logical_block_bytes,
                    read_only=device.read_only,
                    in_use_reason=device.in_use_reason,
                )
                for device in host.list_block_devices()
            ]
        )

    def CreateSigningRequest(  # noqa: N802
        self, request: agent_pb2.CreateSigningRequestRequest, context: grpc.ServicerContext
    ) -> agent_pb2.CreateSigningRequestResponse:
        """Make a key and a request for it."""
        pem = self._credentials.create_signing_request()
        return agent_pb2.CreateSigningRequestResponse(signing_request_pem=pem)

    def AdoptIdentity(  # noqa: N802
        self, request: agent_pb2.AdoptIdentityRequest, context: grpc.ServicerContext
    ) -> agent_pb2.AdoptIdentityResponse:
        """Put the certificate in force."""
        epoch = self._credentials.adopt(request.certificate_pem)
        return agent_pb2.AdoptIdentityResponse(epoch=epoch)

    def Vacate(  # noqa: N802
        self, request: agent_pb2.VacateRequest, context: grpc.ServicerContext
    ) -> agent_pb2.VacateResponse:
        """Make room for another migration; whoever asks is shut out first."""
        epoch = self._credentials.identity.epoch + 1
        self._credentials.see_epoch(epoch)
        self._end_other_calls(context, _VACATE_SECONDS)
        self._jobs.vacate(_VACATE_SECONDS)
        return agent_pb2.VacateResponse(epoch=epoch)

    def StartJob(  # noqa: N802
        self, request: agent_pb2.StartJobRequest, context: grpc.ServicerContext
    ) -> agent_pb2.StartJobResponse:
        """Start or find."""
        return agent_pb2.StartJobResponse(job=self._jobs.start(request))

    def GetJob(  # noqa: N802
        self, request: agent_pb2.GetJobRequest, context: grpc.ServicerContext
    ) -> agent_pb2.GetJobResponse:
        """Look at one."""
        return agent_pb2.GetJobResponse(job=self._jobs.get(request.job_id).snapshot())

    def ListJobs(  # noqa: N802
        self, request: agent_pb2.ListJobsRequest, context: grpc.ServicerContext
    ) -> agent_pb2.ListJobsResponse:
        """Look at all."""
        return agent_pb2.ListJobsResponse(jobs=self._jobs.list())

    def WatchJob(  # noqa: N802
        self, request: agent_pb2.WatchJobRequest, context: grpc.ServicerContext
    ) -> Iterator[agent_pb2.WatchJobResponse]:
        """Look at one until it ended."""
        interval = request.interval.ToTimedelta().total_seconds() or _WATCH_SECONDS
        for job in self._jobs.watch(request.job_id, interval, context.is_active):
            yield agent_pb2.WatchJobResponse(job=job)

    def UpdateJob(  # noqa: N802
        self, request: agent_pb2.UpdateJobRequest, context: grpc.ServicerContext
    ) -> agent_pb2.UpdateJobResponse:
        """Steer."""
        work = self._jobs.get(request.job_id)
        work.update(
            request.limit_bytes_per_second if request.HasField("limit_bytes_per_second") else None,
            request.paused if request.HasField("paused") else None,
        )
        return agent_pb2.UpdateJobResponse(job=work.snapshot())

    def CancelJob(  # noqa: N802
        self, request: agent_pb2.CancelJobRequest, context: grpc.ServicerContext
    ) -> agent_pb2.CancelJobResponse:
        """Stop one in order."""
        work = self._jobs.get(request.job_id)
        work.cancel(CancelledError("CANCELLED", "The controller cancelled the job."))
        return agent_pb2.CancelJobResponse(job=work.snapshot())

    def ReadManifest(  # noqa: N802
        self, request: agent_pb2.ReadManifestRequest, context: grpc.ServicerContext
    ) -> Iterator[agent_pb2.ReadManifestResponse]:
        """Give digests away."""
        for first, digests in self._jobs.read_manifest(request.transfer_id, request.first_chunk):
            yield agent_pb2.ReadManifestResponse(first_chunk=first, digests=digests)

    def WriteManifest(  # noqa: N802
        self,
        request_iterator: Iterator[agent_pb2.WriteManifestRequest],
        context: grpc.ServicerContext,
    ) -> agent_pb2.WriteManifestResponse:
        """Take digests."""
        first = next(request_iterator, None)
        if first is None:
            raise UsageError("REQUEST_INVALID", "A manifest needs at least one message.")
        count = self._jobs.write_manifest(first.transfer_id, _runs(first, request_iterator))
        return agent_pb2.WriteManifestResponse(chunk_count=count)

    def ProbePeer(  # noqa: N802
        self, request: agent_pb2.ProbePeerRequest, context: grpc.ServicerContext
    ) -> agent_pb2.ProbePeerResponse:
        """Look for the paired agent."""
        return agent_pb2.ProbePeerResponse(reaches=peer.probe(self._dial, request))

    def MeasureLink(  # noqa: N802
        self, request: agent_pb2.MeasureLinkRequest, context: grpc.ServicerContext
    ) -> agent_pb2.MeasureLinkResponse:
        """Try the link."""
        return self._bench.measure(request)

    def Relay(  # noqa: N802
        self,
        request_iterator: Iterator[agent_pb2.RelayRequest],
        context: grpc.ServicerContext,
    ) -> Iterator[agent_pb2.RelayResponse]:
        """Dial the paired agent through the controller."""
        told = (request.data for request in request_iterator)
        for segment in self._relay.carry(told, context.add_callback):
            yield agent_pb2.RelayResponse(data=segment)


def _runs(
    first: agent_pb2.WriteManifestRequest, rest: Iterator[agent_pb2.WriteManifestRequest]
) -> Iterator[tuple[int, bytes]]:
    yield first.first_chunk, first.digests
    for message in rest:
        if message.transfer_id != first.transfer_id:
            raise UsageError("REQUEST_INVALID", "One stream, one transfer.")
        yield message.first_chunk, message.digests


class TransferServicer:
    """TransferService; frames pass as bytes, see `frames`."""

    def __init__(self, jobs: JobRegistry, bench: Bench) -> None:
        self._jobs = jobs
        self._bench = bench

    def handler(self) -> grpc.GenericRpcHandler:
        """For the server. Not the generated one: that copies each payload twice."""
        handlers: dict[str, Any] = {
            "GetWriteState": grpc.unary_unary_rpc_method_handler(
                self._write_state,
                request_deserializer=transfer_pb2.GetWriteStateRequest.FromString,
                response_serializer=transfer_pb2.GetWriteStateResponse.SerializeToString,
            ),
            "Push": grpc.stream_stream_rpc_method_handler(
                self._push,
                request_deserializer=None,
                response_serializer=transfer_pb2.PushResponse.SerializeToString,
            ),
            "Pull": grpc.stream_stream_rpc_method_handler(
                self._pull,
                request_deserializer=transfer_pb2.PullRequest.FromString,
                response_serializer=None,
            ),
            "Trial": grpc.stream_stream_rpc_method_handler(
                self._trial,
                request_deserializer=transfer_pb2.TrialRequest.FromString,
                response_serializer=transfer_pb2.TrialResponse.SerializeToString,
            ),
        }
        return grpc.method_handlers_generic_handler("blockferry.v1.TransferService", handlers)

    def _write_state(
        self, request: transfer_pb2.GetWriteStateRequest, context: grpc.ServicerContext
    ) -> transfer_pb2.GetWriteStateResponse:
        return self._jobs.receiver(request.transfer_id).write_state()

    def _push(
        self, requests: Iterator[bytes], context: grpc.ServicerContext
    ) -> Iterator[transfer_pb2.PushResponse]:
        messages = map(frames.unpack, requests)
        hello = next(messages, None)
        if not isinstance(hello, transfer_pb2.PushHello):
            raise UsageError("HELLO_MISSING", "A push stream begins with a hello.")
        yield from self._jobs.receiver(hello.transfer_id).push(hello, messages)

    def _pull(
        self, requests: Iterator[transfer_pb2.PullRequest], context: grpc.ServicerContext
    ) -> Iterator[bytes]:
        first = next(requests, None)
        if first is None or not first.HasField("hello"):
            raise UsageError("HELLO_MISSING", "A pull stream begins with a hello.")
        berth = self._jobs.sender(first.hello.transfer_id).dock.join(first.hello, requests)
        if not context.add_callback(berth.lost):
            berth.lost()
        # Tells the sink that its channel counts, long before the first frame.
        context.send_initial_metadata(())
        yield from berth.outgoing()

    def _trial(
        self, requests: Iterator[transfer_pb2.TrialRequest], context: grpc.ServicerContext
    ) -> Iterator[transfer_pb2.TrialResponse]:
        yield from self._bench.answer(requests)
