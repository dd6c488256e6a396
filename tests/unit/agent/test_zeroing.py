import pytest

from blockferry_agent.ports import ZeroMethod
from blockferry_agent.zeroing import READ, SKIP, Action, ActionKind, ZeroingState, decide

PUNCH, RANGE, OUT, WRITE = ZeroMethod

ALL = ZeroingState.of(ZeroMethod)
PUNCH_PROVEN = ALL.with_proof(PUNCH)
WRITE_ONLY = ZeroingState.of([])


def zero_by(method: ZeroMethod, *, check: bool) -> Action:
    return Action(ActionKind.ZERO, method, check)


TABLE = {
    "hole, not read": (True, None, ALL, SKIP),
    "hole, read as zero": (True, True, ALL, SKIP),
    "hole, read as data": (True, False, ALL, SKIP),
    "no hole, not read": (False, None, ALL, READ),
    "no hole, not read, method proven": (False, None, PUNCH_PROVEN, READ),
    "no hole, zero": (False, True, ALL, SKIP),
    "not zero, only writing is left": (False, False, WRITE_ONLY, zero_by(WRITE, check=False)),
    "not zero, method proven": (False, False, PUNCH_PROVEN, zero_by(PUNCH, check=False)),
    "not zero, method not proven": (False, False, ALL, zero_by(PUNCH, check=True)),
}


@pytest.mark.parametrize(("hole", "reads", "state", "action"), TABLE.values(), ids=TABLE.keys())
def test_row(hole: bool, reads: bool | None, state: ZeroingState, action: Action) -> None:
    assert decide(hole, reads, state) == action


@pytest.mark.parametrize(
    ("state", "action"),
    [(PUNCH_PROVEN, zero_by(PUNCH, check=True)), (WRITE_ONLY, zero_by(WRITE, check=False))],
    ids=["method proven", "only writing is left"],
)
def test_row_of_a_short_chunk(state: ZeroingState, action: Action) -> None:
    assert decide(False, False, state, whole_chunk=False) == action


def test_methods_are_tried_cheapest_first_and_end_with_write() -> None:
    state = ZeroingState.of([OUT, PUNCH])
    assert state.methods == (PUNCH, OUT, WRITE)


def test_dropping_goes_down_to_write_and_no_further() -> None:
    state, seen = ALL, []
    for _ in range(6):
        method = decide(False, False, state).method
        assert method is not None
        seen.append(method)
        state = state.without(method)
    assert seen == [PUNCH, RANGE, OUT, WRITE, WRITE, WRITE]


def test_a_dropped_method_loses_its_proof() -> None:
    state = PUNCH_PROVEN.without(PUNCH)
    assert state.proven == frozenset()
    assert decide(False, False, state) == zero_by(RANGE, check=True)


def test_proof_of_one_method_is_not_proof_of_another() -> None:
    state = ALL.with_proof(RANGE)
    assert decide(False, False, state) == zero_by(PUNCH, check=True)
