"""Whatever fails whenever: the commit point never lies, never goes back, the end is equal.

The sink's device forgets at a power cut whatever was not flushed.
"""

import shutil
import tempfile
from pathlib import Path

from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule, run_state_machine_as_test

from blockferry_agent.memory_device import Call, MemoryDevice
from tests.layouts import LETTERS, content, make_memory
from tests.transfer import Outcome, Transfer

faults = st.sampled_from(
    [
        ("source", "read"),
        ("sink", "read"),
        ("sink", "write"),
        ("sink", "zero"),
        ("sink", "flush"),
    ]
)


class Struck(RuleBasedStateMachine):
    """One transfer, struck again and again."""

    @initialize(layout=st.text(LETTERS, min_size=12, max_size=40), tail=st.integers(1, 1 << 20))
    def begin(self, layout: str, tail: int) -> None:
        self.state = Path(tempfile.mkdtemp())
        self.wanted = content(layout, tail_bytes=tail)
        self.source = make_memory(layout, tail_bytes=tail)
        self.sink = MemoryDevice(len(self.wanted), garbage_seed=9, block_bytes=1, volatile=True)
        self.transfer = Transfer(self.source, self.sink, self.state)
        self.committed = 0
        self.boots = 0

    @rule(fault=faults, nth=st.integers(1, 45), cut=st.booleans())
    def strike(self, fault: tuple[str, Call], nth: int, cut: bool) -> None:
        side, call = fault
        device = self.source if side == "source" else self.sink
        device.fail(call, nth)
        outcome = self.transfer.run()
        # Not for the next run, when this one ended before it was due.
        device.fail(call, 1 << 40)
        self._check(outcome)
        if cut:
            self.sink.power_cut()
            self.boots += 1
            self.transfer.boot_id = f"boot {self.boots}"
            # What is forgotten is what was not durable: it may have been a second's worth.
            self.committed = 0
        safe = outcome.sink.progress.committed_bytes
        assert self.sink.content[:safe] == self.wanted[:safe], "the commit point lied"

    def _check(self, outcome: Outcome) -> None:
        told = outcome.sink.progress
        assert told.resumed_from_bytes >= self.committed, "the commit point went back"
        assert told.committed_bytes >= told.resumed_from_bytes
        self.committed = told.committed_bytes

    def teardown(self) -> None:
        if hasattr(self, "transfer"):
            outcome = self.transfer.run()
            outcome.raise_any()
            self._check(outcome)
            assert self.sink.content == self.wanted
            shutil.rmtree(self.state)


def test_the_commit_point_never_lies() -> None:
    run_state_machine_as_test(
        Struck,
        settings=settings(
            max_examples=10,
            stateful_step_count=4,
            # Shrinking runs of real flows would take longer than a test may.
            phases=(Phase.reuse, Phase.generate),
            suppress_health_check=list(HealthCheck),
        ),
    )
