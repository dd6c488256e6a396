"""What a trial's far end puts up with."""

from collections.abc import Iterator

import pytest

from blockferry.errors import BusyError, UsageError
from blockferry.identity import Role
from blockferry.limits import CHUNK_BYTES, MIB
from blockferry.v1.transfer_pb2 import TrialRequest
from blockferry_agent.trial import BYTES_MAX, Bench
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
