"""How long a trial lasts, and what its far end puts up with."""

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import grpc
import pytest

from blockferry.errors import BusyError, UsageError
from blockferry.identity import Role
from blockferry.limits import CHUNK_BYTES, MIB
from blockferry.v1.agent_pb2 import MeasureLinkRequest
from blockferry.v1.transfer_pb2 import TrialRequest, TrialResponse
from blockferry_agent import trial
from blockferry_agent.trial import BYTES_MAX, ENOUGH_BYTES, Bench
from tests.fakes.clock import ManualClock
from tests.transfer import dial


def bench(role: Role, clock: ManualClock, *, busy: bool = False) -> Bench:
    return Bench(role, dial, clock, lambda: busy)


def test_a_sink_counts_and_has_enough_at_some_point() -> None:
    clock, data = ManualClock(), bytes(CHUNK_BYTES)

    def flood() -> Iterator[TrialRequest]:
        while True:
            clock.sleep(0.00625)
            yield TrialRequest(data=data)

    answers = bench(Role.SINK, clock).answer(flood())
    told = [next(answers).received_bytes for _ in range(40)]
    assert told[0] == CHUNK_BYTES
    assert set(told[1:]) == {4 * CHUNK_BYTES}, "not every request is answered"
    with pytest.raises(UsageError) as caught:
        told += [answer.received_bytes for answer in answers]
    assert caught.value.reason == "OUT_OF_RANGE"
    assert sum(told) <= BYTES_MAX


def test_a_sink_is_not_held_by_who_sends_nothing() -> None:
    clock = ManualClock()
    answers = bench(Role.SINK, clock).answer(TrialRequest() for _ in range(10))
    next(answers)
    clock.sleep(60)
    with pytest.raises(UsageError):
        next(answers)


def test_a_source_gives_random_bytes_and_ends() -> None:
    clock = ManualClock()
    answers = bench(Role.SOURCE, clock).answer(iter([TrialRequest()]))
    sizes, seen = [], set[bytes]()
    for answer in answers:
        sizes.append(len(answer.data))
        seen.add(answer.data[:16])
    assert sum(sizes) == BYTES_MAX == 256 * MIB
    assert sizes[0] < sizes[1] < max(sizes) == CHUNK_BYTES
    assert seen != {bytes(16)}
    late = bench(Role.SOURCE, clock).answer(iter([TrialRequest()]))
    next(late)
    clock.sleep(60)
    assert not list(late)


@pytest.mark.parametrize("role", [Role.SOURCE, Role.SINK])
def test_nothing_is_tried_beside_a_job(role: Role) -> None:
    with pytest.raises(BusyError):
        next(bench(role, ManualClock(), busy=True).answer(iter([TrialRequest()])))


def slow_sink(step_bytes: int) -> grpc.Server:
    """A server to which so many bytes come every 20 ms."""

    def count(
        requests: Iterator[TrialRequest], context: grpc.ServicerContext
    ) -> Iterator[TrialResponse]:
        while context.is_active():
            time.sleep(0.02)
            yield TrialResponse(received_bytes=step_bytes)

    handler = grpc.stream_stream_rpc_method_handler(
        count, TrialRequest.FromString, TrialResponse.SerializeToString
    )
    server = grpc.server(ThreadPoolExecutor(2))
    server.add_registered_method_handlers("blockferry.v1.TransferService", {"Trial": handler})
    return server


@pytest.mark.parametrize(
    ("steps", "enough"), [(40, True), (4000, False)], ids=["slow", "slower than it may take"]
)
def test_a_slow_link_is_measured_for_longer(
    steps: int, enough: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In what is asked for, ten steps arrive."""
    monkeypatch.setattr(trial, "SECONDS_MAX", 3.0)
    server = slow_sink(ENOUGH_BYTES // steps)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    request = MeasureLinkRequest(address=f"127.0.0.1:{port}", channels=1)
    request.duration.FromMilliseconds(200)
    try:
        found = bench(Role.SOURCE, ManualClock()).measure(request)
    finally:
        server.stop(None).wait()
    assert not found.HasField("error"), found.error
    assert (found.received_bytes >= ENOUGH_BYTES) is enough
    assert found.bytes_per_second > 0
