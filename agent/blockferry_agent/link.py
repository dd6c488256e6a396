"""A source's tie to its sink for one attempt, whoever of the two has dialled."""

from collections.abc import Callable
from typing import Final, Protocol

import grpc

from blockferry.errors import InternalError
from blockferry.v1 import transfer_pb2
from blockferry_agent.pipeline import ClosableQueue, StageGroup

_QUEUED_MESSAGES: Final = 3
"""Per channel; beside what gRPC holds itself. Keeps the wire busy, no more."""

Dial = Callable[[str], grpc.Channel]
"""Opens a channel to the paired agent's address, under this agent's identity.
Connects lazily."""


class Link(Protocol):
    """What an attempt needs of the wire; used by one attempt, then closed."""

    def write_state(self, transfer_id: str) -> transfer_pb2.GetWriteStateResponse:
        """How far the sink's medium is safe; a sign of life when asked again."""
        ...

    def open(
        self,
        hello: transfer_pb2.PushHello,
        group: StageGroup,
        on_commit: Callable[[int], None],
    ) -> None:
        """Begin the attempt on all channels; `group` reads their answers.

        Args:
            hello: Without `channel` and `channels`, which are filled in.
            group: Fails with what a stream ends with; ends when all end well.
            on_commit: Called with each commit point, from several threads.

        Raises:
            Closed: a stream ended before all were open.
        """
        ...

    def send(self, message: bytes) -> bool:
        """Queue a frame; waits while all channels are full.

        Returns:
            Whether the wire had been idle.

        Raises:
            Closed: the group failed.
        """
        ...

    def finish(self, root_digest: bytes) -> None:
        """Say that nothing more comes, and end the sending side. Raises Closed."""
        ...

    def close(self, error: BaseException | None = None) -> None:
        """Break off what is open. Idempotent."""
        ...


class Stripes:
    """The sending side of a link's channels: one bounded queue each."""

    def __init__(self, channels: int) -> None:
        self.queues: Final = [ClosableQueue[bytes](_QUEUED_MESSAGES) for _ in range(channels)]

    def greet(self, number: int, hello: transfer_pb2.PushHello) -> None:
        """Queue the hello on its channel. Raises Closed."""
        mine = transfer_pb2.PushHello()
        mine.CopyFrom(hello)
        mine.channel, mine.channels = number, len(self.queues)
        self.queues[number].put(transfer_pb2.PushRequest(hello=mine).SerializeToString())

    def send(self, message: bytes) -> bool:
        """See Link: on the least loaded channel."""
        queue = min(self.queues, key=len)
        idle = len(queue) == 0
        queue.put(message)
        return idle

    def finish(self, root_digest: bytes) -> None:
        """See Link."""
        finish = transfer_pb2.PushFinish(root_digest=root_digest)
        self.queues[0].put(transfer_pb2.PushRequest(finish=finish).SerializeToString())
        for queue in self.queues:
            queue.close()

    def close(self) -> None:
        """Drop what is queued."""
        for queue in self.queues:
            queue.close(InternalError("CLOSED", "the attempt is over"))
