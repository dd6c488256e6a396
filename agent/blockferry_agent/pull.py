"""The streams of one attempt that the sink has dialled, as the source sees them.

Rules:
* A dial is good for one attempt, and only once all its channels are here.
* The dial with the highest number counts; an older one is ended for it.
* A channel ends well only when the sink ends its side without an error. Until
  then its call stays open: a server that returns ends both directions.
"""

import threading
from collections.abc import Callable, Iterator
from functools import partial
from typing import Final

from blockferry.errors import BlockferryError, BusyError, IntegrityError, UnreachableError
from blockferry.limits import MAX_CHANNELS
from blockferry.v1 import transfer_pb2
from blockferry.wire import from_proto
from blockferry_agent.link import Stripes
from blockferry_agent.pipeline import ClosableQueue, StageGroup

_TICK_SECONDS: Final = 0.25


class Berth:
    """One channel, from its hello to its end. Thread-safe."""

    def __init__(
        self, hello: transfer_pb2.PullHello, requests: Iterator[transfer_pb2.PullRequest]
    ) -> None:
        self.hello: Final = hello
        self._requests = requests
        self._lock = threading.Lock()
        self._ended = threading.Event()
        self._error: BlockferryError | None = None
        self._queue: ClosableQueue[bytes] | None = None
        self._begun = threading.Event()

    @property
    def ended(self) -> bool:
        """Whether it is over, well or not."""
        return self._ended.is_set()

    @property
    def error(self) -> BlockferryError | None:
        """Why it ended, unless it ended well or goes on."""
        return self._error

    def begin(self, queue: ClosableQueue[bytes]) -> None:
        """Have `outgoing` send what comes through `queue`."""
        self._queue = queue
        self._begun.set()

    def outgoing(self) -> Iterator[bytes]:
        """All that the source says, until the sink has ended its side; for the server.

        Raises:
            BlockferryError: the channel ended early.
        """
        self._begun.wait()
        if self._queue is not None:
            yield from self._queue
        self._ended.wait()
        if self._error is not None:
            raise self._error

    def listen(self, on_commit: Callable[[int], None]) -> None:
        """Hear what the sink says, to its end.

        Raises:
            BlockferryError: what the sink ended the attempt with, or the channel broke.
        """
        try:
            for request in self._requests:
                kind = request.WhichOneof("message")
                if kind == "commit_point":
                    on_commit(request.commit_point.committed_bytes)
                elif kind == "error":
                    self.end(from_proto(request.error))
                    break
                else:
                    self.end(_bad_stream(str(kind)))
                    break
        except Exception as error:  # noqa: BLE001 - gRPC ends the iterator with a bare one
            self.end(_broken(self.hello.channel, str(error) or "the sink is away"))
        self.end(None)
        if self._error is not None:
            raise self._error

    def lost(self) -> None:
        """The call is over; called by gRPC."""
        self.end(_broken(self.hello.channel, "the sink is away"))

    def end(self, error: BlockferryError | None) -> None:
        """End it; the first call decides."""
        with self._lock:
            if self._ended.is_set():
                return
            self._error = error
            self._ended.set()
        if error is not None and self._queue is not None:
            self._queue.close(error)
        self._begun.set()


class PulledSink:
    """The sink's end of a transfer over a dial of its own; implements Link."""

    def __init__(self, berths: list[Berth]) -> None:
        self._berths = berths
        self._stripes = Stripes(len(berths))

    def write_state(self, transfer_id: str) -> transfer_pb2.GetWriteStateResponse:
        """See Link: as the sink told when it dialled. Raises what the dial ended with."""
        del transfer_id
        for berth in self._berths:
            if berth.error is not None:
                raise berth.error
        return self._berths[0].hello.state

    def open(
        self,
        hello: transfer_pb2.PushHello,
        group: StageGroup,
        on_commit: Callable[[int], None],
    ) -> None:
        """See Link."""
        group.closes(self)
        for number, berth in enumerate(self._berths):
            self._stripes.greet(number, hello)
            berth.begin(self._stripes.queues[number])
            group.spawn(f"answers-{number}", partial(berth.listen, on_commit))

    def send(self, message: bytes) -> bool:
        """See Link."""
        return self._stripes.send(message)

    def finish(self, root_digest: bytes) -> None:
        """See Link."""
        self._stripes.finish(root_digest)

    def close(self, error: BaseException | None = None) -> None:
        """See Link."""
        del error
        for berth in self._berths:
            berth.end(_broken(berth.hello.channel, "the source ended the attempt"))
        self._stripes.close()


class Dock:
    """Where a copy job waits for its sink. Thread-safe."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._dial = 0
        self._berths: dict[int, Berth] = {}
        self._taken = False

    def join(
        self, hello: transfer_pb2.PullHello, requests: Iterator[transfer_pb2.PullRequest]
    ) -> Berth:
        """Count a channel in.

        Raises:
            BusyError: DIAL_STALE, with the highest `dial` seen.
            IntegrityError: STREAM_INVALID.
        """
        if not (1 <= hello.channels <= MAX_CHANNELS and 0 <= hello.channel < hello.channels):
            raise _bad_stream(f"channel {hello.channel} of {hello.channels}")
        with self._changed:
            if hello.dial > self._dial:
                self._supersede(hello.dial)
            elif hello.dial < self._dial or self._taken or hello.channel in self._berths:
                raise BusyError(
                    "DIAL_STALE",
                    f"Dial {self._dial} came before; dial with a higher number.",
                    dial=self._dial,
                )
            berth = self._berths[hello.channel] = Berth(hello, requests)
            self._changed.notify_all()
            return berth

    def _supersede(self, dial: int) -> None:
        for number, berth in self._berths.items():
            berth.end(_broken(number, "the sink has dialled anew"))
        self._dial, self._taken, self._berths = dial, False, {}

    def take(self, seconds: float, stop: threading.Event) -> PulledSink:
        """Wait for a dial with all its channels and take it.

        Args:
            seconds: Longest wait.
            stop: Ends the wait early.

        Raises:
            UnreachableError: SINK_AWAY, none came.
        """
        with self._changed:
            for _ in range(max(1, round(seconds / _TICK_SECONDS))):
                if self._ready():
                    self._taken = True
                    return PulledSink([self._berths[number] for number in sorted(self._berths)])
                if stop.is_set():
                    break
                self._changed.wait(_TICK_SECONDS)
        raise UnreachableError(
            "SINK_AWAY", f"The sink, which is to dial, has not come within {seconds:.0f} s."
        )

    def _ready(self) -> bool:
        berths = self._berths.values()
        return (
            not self._taken
            and bool(berths)
            and all(len(berths) == berth.hello.channels and not berth.ended for berth in berths)
        )


def _broken(channel: int, why: str) -> UnreachableError:
    return UnreachableError(
        "STREAM_BROKEN", f"Channel {channel} from the sink broke: {why}.", channel=channel
    )


def _bad_stream(what: str) -> IntegrityError:
    return IntegrityError(
        "STREAM_INVALID", f"A stream said {what}; both agents must run the same version."
    )
