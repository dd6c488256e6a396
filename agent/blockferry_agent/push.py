"""The streams of one attempt: frames out, commit points in, over several channels.

Every channel is a gRPC channel of its own, so that each has a TCP connection
and a TLS thread of its own. The only module of the source that knows gRPC.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, Final

import grpc

from blockferry.errors import BlockferryError, CancelledError
from blockferry.v1 import transfer_pb2, transfer_pb2_grpc
from blockferry.wire import from_rpc_error
from blockferry_agent.link import Dial, Stripes
from blockferry_agent.pipeline import Closed, StageGroup

_CALL_SECONDS: Final = 15.0

_PUSH: Final = "/blockferry.v1.TransferService/Push"


class Sink:
    """The sink's end of a transfer, at one address, for one attempt; implements Link."""

    def __init__(self, dial: Dial, address: str, channels: int) -> None:
        self._address = address
        self._channels = [dial(address) for _ in range(channels)]
        self._stripes = Stripes(channels)
        self._calls: list[grpc.Call] = []

    @property
    def address(self) -> str:
        """As it was dialled."""
        return self._address

    def write_state(self, transfer_id: str) -> transfer_pb2.GetWriteStateResponse:
        """Ask how far the sink's medium is safe. Raises what the sink answered."""
        stub = transfer_pb2_grpc.TransferServiceStub(self._channels[0])
        request = transfer_pb2.GetWriteStateRequest(transfer_id=transfer_id)
        try:
            return stub.GetWriteState(request, timeout=_CALL_SECONDS)
        except grpc.RpcError as error:
            raise from_rpc_error(error, address=self._address) from error

    def open(
        self,
        hello: transfer_pb2.PushHello,
        group: StageGroup,
        on_commit: Callable[[int], None],
    ) -> None:
        """See Link."""
        group.closes(self)
        for number, queue in enumerate(self._stripes.queues):
            self._stripes.greet(number, hello)
            # Requests are serialized by hand: see frames.py.
            push: Any = self._channels[number].stream_stream(
                _PUSH,
                request_serializer=None,
                response_deserializer=transfer_pb2.PushResponse.FromString,
            )
            try:
                call = push(iter(queue))
            except ValueError as error:
                # gRPC's word for a channel that `close` was quicker with.
                raise Closed from error
            self._calls.append(call)
            group.spawn(f"answers-{number}", partial(self._listen, call, on_commit))

    def _listen(self, call: Any, on_commit: Callable[[int], None]) -> None:
        try:
            for response in call:
                kind = response.WhichOneof("message")
                if kind == "commit_point":
                    on_commit(response.commit_point.committed_bytes)
        except grpc.RpcError as error:
            raise from_rpc_error(error, address=self._address) from error

    def send(self, message: bytes) -> bool:
        """See Link."""
        return self._stripes.send(message)

    def finish(self, root_digest: bytes) -> None:
        """See Link."""
        self._stripes.finish(root_digest)

    def close(self, error: BaseException | None = None) -> None:
        """See Link."""
        for call in self._calls:
            call.cancel()
        self._stripes.close()
        for channel in self._channels:
            channel.close()


def is_transient(error: BlockferryError) -> bool:
    """Whether another attempt may help: the sink is away, restarting, or was stopped.

    CancelledError is a sink that stopped in order and may come back; it is not
    the cancelling of this job, which the flow knows by itself.
    """
    return (
        error.meaning.retryable or error.reason in _TRANSIENT or isinstance(error, CancelledError)
    )


_TRANSIENT: Final = frozenset(
    {
        "TRANSFER_NOT_FOUND",  # its receive job is not started again yet
        "ATTEMPT_STALE",
        "START_MISMATCH",  # it was replaced by one with an older journal
        "STALE_EPOCH",  # a new controller came to the sink first, and comes to us next
        "TLS_REFUSED",
    }
)
