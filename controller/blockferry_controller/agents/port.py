"""The agent as a migration needs it; the gRPC client implements it.

Errors are ours, rebuilt from the wire by blockferry.errors.from_wire. A call
that could not be delivered raises UnreachableError and may be repeated: all
calls are idempotent. Messages of the wire contract are used as they are: they
are the agreed vocabulary of both sides.
"""

from collections.abc import Iterable, Iterator
from typing import Protocol

from blockferry.v1 import agent_pb2


class Agent(Protocol):
    """One agent, reached at one address, under one identity of the controller."""

    def describe(self) -> agent_pb2.DescribeResponse:
        """Who and what the agent is."""
        ...

    def list_block_devices(self) -> list[agent_pb2.BlockDevice]:
        """The instance's disks."""
        ...

    def create_signing_request(self) -> bytes:
        """A PKCS #10 request in PEM for a key the agent made just now."""
        ...

    def adopt_identity(self, certificate_pem: bytes) -> None:
        """Put the certificate for that key in force."""
        ...

    def start_job(self, request: agent_pb2.StartJobRequest) -> agent_pb2.Job:
        """Start, or find by its request_id."""
        ...

    def get_job(self, job_id: str) -> agent_pb2.Job:
        """The job as it is now."""
        ...

    def list_jobs(self) -> list[agent_pb2.Job]:
        """The jobs this agent process knows, oldest first."""
        ...

    def watch_job(self, job_id: str, interval_seconds: float) -> Iterator[agent_pb2.Job]:
        """The job now and at every change; ends with a final state."""
        ...

    def update_job(
        self, job_id: str, *, limit_bytes_per_second: int | None = None, paused: bool | None = None
    ) -> agent_pb2.Job:
        """Change what is not None."""
        ...

    def cancel_job(self, job_id: str) -> agent_pb2.Job:
        """Ask it to stop in order."""
        ...

    def read_manifest(self, transfer_id: str, first_chunk: int) -> Iterator[tuple[int, bytes]]:
        """Runs of digests: (index of the first chunk, 32 bytes a chunk)."""
        ...

    def write_manifest(self, transfer_id: str, runs: Iterable[tuple[int, bytes]]) -> int:
        """Give the agent digests from chunk 0 on; returns how many it knows now."""
        ...

    def close(self) -> None:
        """Close the connection. Idempotent."""
        ...
