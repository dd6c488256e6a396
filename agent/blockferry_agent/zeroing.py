"""Decides how a sink makes a range read as zeros, and never assumes that it does.

A new volume need not be zero: thick LVM, LUKS and reused extents keep what was
there; vjailbreak and vmware-migration-kit lost data by skipping (issues 2208 and
179). So a zero range is proven or produced:

    extent is a hole | read back  | method left, proven | whole chunk | action
    -----------------+------------+---------------------+-------------+------------------------
    yes              | any        | any                 | any         | SKIP
    no               | not yet    | any                 | any         | READ
    no               | zero       | any                 | any         | SKIP
    no               | not zero   | WRITE               | any         | ZERO by WRITE
    no               | not zero   | other, proven       | yes         | ZERO by it
    no               | not zero   | other, proven       | no          | ZERO by it, then check
    no               | not zero   | other, not proven   | any         | ZERO by it, then check

A proof holds for whole chunks: storage that unmaps in units of its own is known to
leave the ends of a range that does not fill them.

What follows a ZERO:

    outcome                              | next state
    -------------------------------------+---------------------------------------
    UnsupportedZeroMethod                | `without` it, decide again
    checked, reads zero                  | `with_proof` of it, done
    checked, does not (the device lies)  | `without` it, decide again
    not checked                          | same, done

Methods go cheapest first, and one that is dropped stays dropped for the device's
life. WRITE is never dropped: it is the data path, which the proof covers.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from enum import Enum

from blockferry_agent.ports import ZeroMethod


class ActionKind(Enum):
    """What to do next with a range that must read as zeros."""

    SKIP = "skip"
    """Nothing: it is proven to read as zeros."""
    READ = "read"
    """Read it and decide again with what was found."""
    ZERO = "zero"
    """Produce the zeros by `Action.method`."""


@dataclass(frozen=True, slots=True)
class Action:
    """One step.

    Attributes:
        kind: What to do.
        method: For ZERO, by which method; None otherwise.
        check: For ZERO, whether to read the range back afterwards.
    """

    kind: ActionKind
    method: ZeroMethod | None = None
    check: bool = False


SKIP = Action(ActionKind.SKIP)
READ = Action(ActionKind.READ)


@dataclass(frozen=True, slots=True)
class ZeroingState:
    """What is known of a device's ways to make zeros.

    Attributes:
        methods: Left to use, cheapest first; the last is always WRITE.
        proven: Those whose first success was read back and found zero.
    """

    methods: tuple[ZeroMethod, ...]
    proven: frozenset[ZeroMethod] = frozenset()

    @classmethod
    def of(cls, methods: Iterable[ZeroMethod]) -> ZeroingState:
        """Start with what a device advertises; order and WRITE are seen to."""
        offered = {*methods, ZeroMethod.WRITE}
        return cls(tuple(method for method in ZeroMethod if method in offered))

    def without(self, method: ZeroMethod) -> ZeroingState:
        """Drop a method that is unsupported or was caught lying; WRITE stays."""
        if method is ZeroMethod.WRITE:
            return self
        left = tuple(other for other in self.methods if other is not method)
        return ZeroingState(left, self.proven - {method})

    def with_proof(self, method: ZeroMethod) -> ZeroingState:
        """Note that a range made by `method` was read back as zeros."""
        return replace(self, proven=self.proven | {method})


def decide(
    extent_hole: bool, reads_zero: bool | None, state: ZeroingState, *, whole_chunk: bool = True
) -> Action:
    """Return the next action of the first table above.

    Args:
        extent_hole: The storage promises that the whole range reads as zeros.
        reads_zero: What reading the range found; None before it was read.
        state: The device's methods.
        whole_chunk: Whether the range is a chunk, not a last shorter one.
    """
    if extent_hole or reads_zero:
        return SKIP
    if reads_zero is None:
        return READ
    method = state.methods[0]
    trusted = method is ZeroMethod.WRITE or (whole_chunk and method in state.proven)
    return Action(ActionKind.ZERO, method, check=not trusted)
