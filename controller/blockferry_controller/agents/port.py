"""The agent as a migration needs it; the gRPC client implements it.

Errors are ours, rebuilt from the wire by blockferry.errors.from_wire. A call
that could not be delivered raises UnreachableError and may be repeated: all
calls are idempotent. Messages of the wire contract are used as they are: they
are the agreed vocabulary of both sides.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import Protocol

from blockferry.identity import Identity
from blockferry.v1 import agent_pb2
from blockferry_controller.agents.credentials import Credentials


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

    def vacate(self) -> None:
        """Make room for another migration: nothing is left of jobs and transfers on return.

        From then on the agent lets in a higher epoch than the caller's only. On an error,
        whichever, that may be so without the rest: end the instance.

        Raises:
            BusyError: BUSY, a job does not end.
        """
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

    def probe_peer(
        self, addresses: Sequence[str], timeout_seconds: float
    ) -> list[agent_pb2.PeerReach]:
        """Have the agent dial the paired one at each of `addresses`, all at once.

        Args:
            addresses: `host:port`, IPv6 in brackets; 1 to 16.
            timeout_seconds: Longest wait for all of them, in (0, 30].

        Returns:
            What became of each, in that order; what does not answer is no error.
        """
        ...

    def measure_link(
        self, address: str, channels: int, seconds: float
    ) -> agent_pb2.MeasureLinkResponse:
        """Have the agent dial the paired one and measure what arrives of random bytes.

        Args:
            address: One that `probe_peer` has found.
            channels: Connections, in [1, 16]; 0 lets the agent choose as for a copy.
            seconds: How long, in (0, 3]; it ends earlier after 256 MiB.

        Returns:
            Its rate, or why there is none: what does not answer is no error.

        Raises:
            BusyError: BUSY, a job or another measurement is at work there.
        """
        ...

    def relay(self, told: Iterator[bytes]) -> Iterator[bytes]:
        """Lend the agent one connection to its peer: its next dial of RELAY_ADDRESS.

        Args:
            told: What the peer says; read in another thread, its end is the peer's.

        Returns:
            What the agent says, nothing before it dials; ends when it, or the call, does.
            Tried once: who lends a stream lends another when it breaks.

        Raises:
            UnreachableError: TOO_MANY_RELAYS, or the agent is away.
        """
        ...

    def close(self) -> None:
        """Close the connection. Idempotent."""
        ...


class Dial(Protocol):
    """Gets hold of an agent."""

    def __call__(
        self,
        address: str,
        identity: Identity,
        credentials: Credentials,
        root_pem: bytes,
        *,
        bootstrap: bool = False,
        patient: bool = True,
    ) -> Agent:
        """The agent at `address`, not yet spoken to.

        Args:
            address: `host:port`, IPv6 in brackets.
            identity: Whom its certificate must name.
            credentials: The controller's own.
            root_pem: The only root that may have signed the agent's certificate.
            bootstrap: Expect what cloud-init carried instead of an adopted identity.
            patient: Repeat calls that reach nobody; without, one try each.
        """
        ...
