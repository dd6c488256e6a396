"""The streams of one attempt: frames out, commit points in, over several channels.

Every channel is a gRPC channel of its own, so that each has a TCP connection
and a TLS thread of its own. The only module of the source that knows gRPC.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, Final

import grpc

from blockferry.errors import BlockferryError, CancelledError, InternalError
from blockferry.v1 import transfer_pb2, transfer_pb2_grpc
from blockferry.wire import from_rpc_error
from blockferry_agent.link import Dial
from blockferry_agent.pipeline import ClosableQueue, Closed, StageGroup

_QUEUED_MESSAGES: Final = 3
"""Per channel; beside what gRPC holds itself. Keeps the wire busy, no more."""

_CALL_SECONDS: Final = 15.0

_PUSH: Final = "/blockferry.v1.TransferService/Push"


class Sink:
    """The sink's end of a transfer, at one address, for one attempt."""

    def __init__(self, dial: Dial, address: str, channels: int) -> None:
        self._address = address
        self._channels = [dial(address) for _ in range(channels)]
        self._queues = [ClosableQueue[bytes](_QUEUED_MESSAGES) for _ in range(channels)]
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
        """Open all streams; `group` reads their answers.

        Raises Closed when a stream ended before all were open.

        Args:
            hello: Without `channel` and `channels`, which are filled in.
            group: Fails with what a stream ends with; ends when all end well.
            on_commit: Called with each commit point, from several threads.
        """
        group.closes(*self._queues, self)
        for number, queue in enumerate(self._queues):
            mine = transfer_pb2.PushHello()
            mine.CopyFrom(hello)
            mine.channel, mine.channels = number, len(self._queues)
            queue.put(transfer_pb2.PushRequest(hello=mine).SerializeToString())
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
        """Queue a frame on the least loaded channel; waits while all are full.

        Returns:
            Whether the wire had been idle: that channel's queue was empty.

        Raises:
            Closed: the group failed.
        """
        queue = min(self._queues, key=len)
        idle = len(queue) == 0
        queue.put(message)
        return idle

    def finish(self, root_digest: bytes) -> None:
        """Say that nothing more comes, and end the sending side. Raises Closed."""
        finish = transfer_pb2.PushFinish(root_digest=root_digest)
        self._queues[0].put(transfer_pb2.PushRequest(finish=finish).SerializeToString())
        for queue in self._queues:
            queue.close()

    def close(self, error: BaseException | None = None) -> None:
        """Break off what is open. Idempotent."""
        for call in self._calls:
            call.cancel()
        for queue in self._queues:
            queue.close(InternalError("CLOSED", "the attempt is over"))
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
