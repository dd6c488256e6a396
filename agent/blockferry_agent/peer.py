"""Whether the paired agent can be reached, address by address.

An address counts when a call over it came back: only then have both sides
accepted each other. With TLS 1.3 the dialling side has finished its handshake
before the other has so much as looked at its certificate. The call is
grpc.health.v1's, which an agent answers to whoever TLS has verified.
"""

import time
from contextlib import ExitStack
from typing import Any, Final

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from blockferry.errors import BlockferryError, DeadlineError, UsageError
from blockferry.v1 import agent_pb2
from blockferry.wire import from_rpc_error, to_proto
from blockferry_agent.link import Dial

ADDRESSES_MAX: Final = 16
_SECONDS: Final = 5.0
_SECONDS_MAX: Final = 30.0


def probe(dial: Dial, request: agent_pb2.ProbePeerRequest) -> list[agent_pb2.PeerReach]:
    """Dial all addresses at once; what became of each, in the order asked for.

    Raises:
        UsageError: OUT_OF_RANGE.
        PreconditionError: NOT_ADOPTED.
    """
    seconds = request.timeout.ToTimedelta().total_seconds() or _SECONDS
    if not (0 < seconds <= _SECONDS_MAX and 1 <= len(request.addresses) <= ADDRESSES_MAX):
        raise UsageError(
            "OUT_OF_RANGE",
            f"A peer is looked for at 1 to {ADDRESSES_MAX} addresses, for up to "
            f"{_SECONDS_MAX:.0f} s; not at {len(request.addresses)} for {seconds} s.",
        )
    with ExitStack() as held:
        calls = [_Call(held.enter_context(dial(one)), one, seconds) for one in request.addresses]
        return [call.result() for call in calls]


class _Call:
    """One address, being dialled."""

    def __init__(self, channel: grpc.Channel, address: str, seconds: float) -> None:
        self._address = address
        self._seconds = seconds
        started = time.perf_counter()
        self._latency = 0.0
        # Its stub has no types.
        stub: Any = health_pb2_grpc.HealthStub(channel)
        self._future = stub.Check.future(health_pb2.HealthCheckRequest(), timeout=seconds)
        self._future.add_done_callback(lambda _: self._stop(started))

    def _stop(self, started: float) -> None:
        self._latency = time.perf_counter() - started

    def result(self) -> agent_pb2.PeerReach:
        reach = agent_pb2.PeerReach(address=self._address)
        try:
            self._future.result()
        except grpc.RpcError as error:
            reach.error.CopyFrom(to_proto(self._ours(error)))
            return reach
        reach.reachable = True
        # The callback may still be about to run; 1 us says "at once" then.
        reach.latency.FromMicroseconds(max(1, int(self._latency * 1e6)))
        return reach

    def _ours(self, error: Exception) -> BlockferryError:
        if isinstance(error, grpc.Call) and error.code() is grpc.StatusCode.DEADLINE_EXCEEDED:
            return DeadlineError(
                "PEER_SILENT",
                f"nothing came back from {self._address} within {self._seconds:.0f} s: there is "
                "no route to it, or a firewall or security group drops what we send",
                address=self._address,
            )
        return from_rpc_error(error, address=self._address)
