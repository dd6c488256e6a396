"""What the link to the paired agent carries: random bytes, counted and thrown away.

Rules:
* The bytes go the way of the copy, from source to sink, whoever dials, over as many
  channels. They come from no device and go to none.
* What has arrived counts, as the sink tells. The first half is left out: that is
  where TCP gets up to speed.
* It lasts as long as was asked, and longer, to SECONDS_MAX, where ENOUGH_BYTES have not
  arrived: the first MiBs of a slow host are TLS and gRPC getting up to speed, not its link.
* A trial ends after SECONDS_MAX or BYTES_MAX, and is refused, at both ends, while a
  job is at work.
"""

import functools
import math
import os
import threading
import time
from collections.abc import Callable, Iterator
from typing import Final

import grpc

from blockferry.errors import BlockferryError, BusyError, UsageError
from blockferry.identity import Role
from blockferry.limits import CHUNK_BYTES, KIB, MIB
from blockferry.v1 import agent_pb2, transfer_pb2, transfer_pb2_grpc
from blockferry.wire import from_rpc_error, to_proto
from blockferry_agent import host
from blockferry_agent.assignments import count_channels
from blockferry_agent.link import Dial
from blockferry_agent.ports import Clock
from blockferry_agent.throughput import Mark, rate_of

SECONDS_MAX: Final = 10.0
BYTES_MAX: Final = 256 * MIB
ENOUGH_BYTES: Final = 16 * MIB
"""Emulated guests on a busy host told 0.35 MiB/s after a second, and copied at 5 MiB/s."""
_SECONDS: Final = 1.0
_CONNECT_SECONDS: Final = 5.0
"""Longest wait for the first bytes to arrive."""
_TELL_SECONDS: Final = 0.02
"""A sink that answered each segment would be slower than one that writes them."""
_FIRST_BYTES: Final = 16 * KIB
"""A slow link should have carried some segments in the time; each is twice the last."""


class Bench:
    """Both ends of a trial, at one agent. Thread-safe."""

    def __init__(self, role: Role, dial: Dial, clock: Clock, is_busy: Callable[[], bool]) -> None:
        self._role = role
        self._dial = dial
        self._clock = clock
        self._is_busy = is_busy
        self._one = threading.Lock()

    def measure(self, request: agent_pb2.MeasureLinkRequest) -> agent_pb2.MeasureLinkResponse:
        """Dial the peer and measure.

        Raises:
            UsageError: OUT_OF_RANGE, CHANNELS_INVALID.
            BusyError: BUSY.
            PreconditionError: NOT_ADOPTED.
        """
        seconds = request.duration.ToTimedelta().total_seconds() or _SECONDS
        if not (0 < seconds <= SECONDS_MAX and request.address):
            raise UsageError(
                "OUT_OF_RANGE",
                f"A link is measured at one address, for up to {SECONDS_MAX:.0f} s; not at "
                f"{request.address!r} for {seconds} s.",
            )
        channels = count_channels(request.channels, host.cpu_count())
        if not self._one.acquire(blocking=False):
            raise _busy()
        try:
            self._refuse_busy()
            trial = _Trial(self._role, request.address)
            return trial.run(self._dial, channels, seconds)
        finally:
            self._one.release()

    def answer(
        self, requests: Iterator[transfer_pb2.TrialRequest]
    ) -> Iterator[transfer_pb2.TrialResponse]:
        """Serve one channel of a peer's trial.

        Raises:
            UsageError: OUT_OF_RANGE, it goes on for too long.
            BusyError: BUSY.
        """
        self._refuse_busy()
        until = self._clock.monotonic() + SECONDS_MAX + _CONNECT_SECONDS
        if self._role is Role.SOURCE:
            next(requests, None)
            for segment in _segments():
                if self._clock.monotonic() >= until:
                    return
                yield transfer_pb2.TrialResponse(data=segment)
            return
        yield from self._count(requests, until)

    def _count(
        self, requests: Iterator[transfer_pb2.TrialRequest], until: float
    ) -> Iterator[transfer_pb2.TrialResponse]:
        received_bytes = told_bytes = 0
        told_at = -math.inf
        for request in requests:
            received_bytes += len(request.data)
            now = self._clock.monotonic()
            if received_bytes > BYTES_MAX or now >= until:
                raise UsageError(
                    "OUT_OF_RANGE",
                    f"A trial is over after {BYTES_MAX} bytes or {SECONDS_MAX:.0f} s.",
                )
            if now - told_at >= _TELL_SECONDS:
                yield transfer_pb2.TrialResponse(received_bytes=received_bytes - told_bytes)
                told_bytes, told_at = received_bytes, now

    def _refuse_busy(self) -> None:
        if self._is_busy():
            raise _busy()


def _busy() -> BusyError:
    return BusyError(
        "BUSY", "A job or a measurement is at work here; the link is measured when it has ended."
    )


@functools.cache
def _block() -> bytes:
    return os.urandom(CHUNK_BYTES)


def _segments() -> Iterator[bytes]:
    """Random bytes, at most BYTES_MAX."""
    block = _block()
    size, left = _FIRST_BYTES, BYTES_MAX
    while left > 0:
        yield block[: min(size, left)]
        left -= size
        size = min(2 * size, CHUNK_BYTES)


class _Trial:
    """The dialling end of one trial."""

    def __init__(self, role: Role, address: str) -> None:
        self._role = role
        self._address = address
        self._changed = threading.Condition()
        self._arrivals: list[Mark] = []
        self._calls: list[grpc.Call] = []
        self._open = 0
        self._over = False
        self._error: BlockferryError | None = None

    def run(self, dial: Dial, channels: int, seconds: float) -> agent_pb2.MeasureLinkResponse:
        """Measure; returns when nothing moves any more. Raises NOT_ADOPTED."""
        ties = [dial(self._address) for _ in range(channels)]
        self._open = channels
        bound = _CONNECT_SECONDS + SECONDS_MAX
        threads = [
            threading.Thread(target=self._channel, args=(tie, bound), name="trial", daemon=True)
            for tie in ties
        ]
        for thread in threads:
            thread.start()
        self._await(seconds)
        for tie in ties:
            # Ends its call.
            tie.close()
        for thread in threads:
            thread.join(bound)
        return self._result()

    def _await(self, seconds: float) -> None:
        with self._changed:
            self._changed.wait_for(lambda: self._arrivals or self._finished(), _CONNECT_SECONDS)
            if self._arrivals:
                self._changed.wait_for(self._finished, seconds)
                self._changed.wait_for(self._told_enough, SECONDS_MAX - seconds)
            self._over = True

    def _told_enough(self) -> bool:
        return self._arrivals[-1].bytes >= ENOUGH_BYTES or self._finished()

    def _finished(self) -> bool:
        enough = bool(self._arrivals) and self._arrivals[-1].bytes >= BYTES_MAX
        return enough or self._open == 0 or self._error is not None

    def _channel(self, tie: grpc.Channel, bound_seconds: float) -> None:
        error: BlockferryError | None = None
        try:
            stub = transfer_pb2_grpc.TransferServiceStub(tie)
            for answer in stub.Trial(self._outgoing(), timeout=bound_seconds):
                self._count(len(answer.data) or answer.received_bytes)
        except grpc.RpcError as raised:
            error = from_rpc_error(raised, address=self._address)
        except ValueError:
            # gRPC's word for a channel that was closed before its call.
            pass
        with self._changed:
            self._open -= 1
            if not self._over:
                self._error = self._error or error
            self._changed.notify_all()

    def _outgoing(self) -> Iterator[transfer_pb2.TrialRequest]:
        if self._role is Role.SINK:
            yield transfer_pb2.TrialRequest()
            return
        for segment in _segments():
            if self._over:
                return
            yield transfer_pb2.TrialRequest(data=segment)

    def _count(self, bytes_: int) -> None:
        with self._changed:
            if self._over:
                return
            before = self._arrivals[-1].bytes if self._arrivals else 0
            self._arrivals.append(Mark(time.perf_counter(), before + bytes_))
            if before < ENOUGH_BYTES or self._finished():
                self._changed.notify_all()

    def _result(self) -> agent_pb2.MeasureLinkResponse:
        with self._changed:
            found = agent_pb2.MeasureLinkResponse(bytes_per_second=rate_of(self._arrivals))
            found.received_bytes = self._arrivals[-1].bytes if self._arrivals else 0
            if self._error is not None:
                found.error.CopyFrom(to_proto(self._error))
            return found
