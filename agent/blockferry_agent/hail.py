"""A sink that dials its source: the same reception, over calls of its own.

Rules:
* A dial opens all channels and serves one attempt of the source. When it ends
  early, another follows, as long as the job goes on.
* The end of a transfer counts when the source has confirmed it. A source that
  died just before dials nobody, so the sink goes on asking for a while, even
  after its job has succeeded.
"""

import logging
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

import grpc

from blockferry.errors import BlockferryError, BusyError, IntegrityError
from blockferry.v1 import transfer_pb2
from blockferry.wire import from_rpc_error, to_proto
from blockferry_agent import frames
from blockferry_agent.link import Dial
from blockferry_agent.pacing import Backoff
from blockferry_agent.pipeline import ClosableQueue, Closed
from blockferry_agent.reception import Reception

_log = logging.getLogger(__name__)

_PULL: Final = "/blockferry.v1.TransferService/Pull"
_END_SECONDS: Final = 10.0
"""Longest wait for the source to confirm that a channel is over."""


@dataclass(frozen=True, slots=True)
class HailPlan:
    """Whom to dial, and how.

    Attributes:
        transfer_id: Of the migration.
        addresses: `host:port` of the source, tried in turn, at least one.
        channels: gRPC channels, in [1, 16].
        dead_seconds: Silence after which nobody is dialled any more.
    """

    transfer_id: str
    addresses: tuple[str, ...]
    channels: int
    dead_seconds: float


class Hail:
    """Dials for one receive job, in threads of its own."""

    def __init__(self, plan: HailPlan, dial: Dial, reception: Reception) -> None:
        self._plan = plan
        self._dial = dial
        self._reception = reception
        self._number = 0
        self._over = threading.Event()

    def start(self) -> None:
        """Begin. Ends by itself: with the source's confirmation, the job's error or silence."""
        threading.Thread(target=self._run, name="sink-hail", daemon=True).start()

    def _run(self) -> None:
        backoff, tries = Backoff(), 0
        while self._reception.silent_seconds() <= self._plan.dead_seconds:
            try:
                state = self._reception.state()
            except BlockferryError:
                return  # the job has failed or was cancelled
            address = self._plan.addresses[tries % len(self._plan.addresses)]
            tries += 1
            dial = _Dial(self._plan, self._dial, address, self._reception)
            self._number += 1
            if dial.run(self._number, state):
                return
            self._number = max(self._number, dial.highest)
            _log.info("dial %d of %s: %s", self._number, address, dial.error)
            if dial.accepted:
                backoff.reset()
            self._over.wait(backoff.next_seconds())


class _Dial:
    """All channels of one dial."""

    def __init__(self, plan: HailPlan, dial: Dial, address: str, reception: Reception) -> None:
        self._plan = plan
        self._dial = dial
        self._address = address
        self._reception = reception
        self._lock = threading.Lock()
        self._calls: list[Any] = []
        self.error: BlockferryError | None = None
        self.accepted = False
        """Whether the source began an attempt over it."""
        self.highest = 0
        """The highest dial that the source knew, when it refused this one."""

    def run(self, number: int, state: transfer_pb2.GetWriteStateResponse) -> bool:
        """Serve one attempt; whether the source confirmed the end of the transfer."""
        threads = [
            threading.Thread(
                target=self._guard, args=(channel, number, state), name=f"sink-hail-{channel}"
            )
            for channel in range(self._plan.channels)
        ]
        for thread in threads:
            thread.daemon = True
            thread.start()
        for thread in threads:
            thread.join()
        return self.error is None

    def _guard(self, channel: int, number: int, state: transfer_pb2.GetWriteStateResponse) -> None:
        hello = transfer_pb2.PullHello(
            transfer_id=self._plan.transfer_id,
            dial=number,
            channel=channel,
            channels=self._plan.channels,
            state=state,
        )
        try:
            with self._dial(self._address) as tie:
                self._serve(tie, hello)
        except grpc.RpcError as error:
            self._fail(from_rpc_error(error, address=self._address))
        except BlockferryError as error:
            self._fail(error)

    def _fail(self, error: BlockferryError) -> None:
        """Note why it ended, and end the channels that wait for an attempt."""
        with self._lock:
            self.error = self.error or error
            if isinstance(error, BusyError) and error.metadata.get("dial", "").isdigit():
                self.highest = int(error.metadata["dial"])
            calls = [] if self.accepted else list(self._calls)
        for call in calls:
            call.cancel()

    def _serve(self, tie: grpc.Channel, hello: transfer_pb2.PullHello) -> None:
        outgoing = ClosableQueue[bytes](4)
        outgoing.put(transfer_pb2.PullRequest(hello=hello).SerializeToString())
        # Frames are read by hand: see frames.py.
        pull: Any = tie.stream_stream(_PULL, request_serializer=None, response_deserializer=None)
        call = pull(iter(outgoing))
        with self._lock:
            self._calls.append(call)
            failed = self.error is not None
        try:
            if failed:
                call.cancel()
            # The source sends these once it has counted the channel in.
            call.initial_metadata()
            with self._reception.connected():
                self._attend(call, outgoing)
        finally:
            outgoing.close()
            call.cancel()

    def _attend(self, call: Any, outgoing: ClosableQueue[bytes]) -> None:
        messages = map(frames.unpack, call)
        hello = next(messages, None)
        if not isinstance(hello, transfer_pb2.PushHello):
            raise IntegrityError(
                "STREAM_INVALID",
                "A pull stream began without a hello; both agents must run the same version.",
            )
        self.accepted = True
        try:
            self._tell(self._reception.push(hello, messages), outgoing)
        except BlockferryError as error:
            last = transfer_pb2.PullRequest(error=to_proto(error)).SerializeToString()
            self._end(call, outgoing, last)
            raise
        self._end(call, outgoing)
        if call.code() is not grpc.StatusCode.OK:
            raise from_rpc_error(call, address=self._address)

    def _tell(
        self, news: Iterator[transfer_pb2.PushResponse], outgoing: ClosableQueue[bytes]
    ) -> None:
        for response in news:
            if response.HasField("commit_point"):
                point = transfer_pb2.PullRequest(commit_point=response.commit_point)
                outgoing.put(point.SerializeToString())

    def _end(self, call: Any, outgoing: ClosableQueue[bytes], last: bytes = b"") -> None:
        """End our side and wait until the source has ended the call."""
        bound = threading.Timer(_END_SECONDS, call.cancel)
        bound.daemon = True
        bound.start()
        try:
            if last:
                outgoing.put(last)
            outgoing.close()
            call.code()
        except Closed:
            return
        finally:
            bound.cancel()
