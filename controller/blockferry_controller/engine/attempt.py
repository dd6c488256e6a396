"""What it means to run an attempt, and the simplest way to do it."""

from collections.abc import Callable
from typing import Protocol, TypeAlias

StepRunner: TypeAlias = Callable[[str, Callable[[], str]], str]
"""Runs a named step once, checkpoints the one line it returns, and returns it."""

Attempt: TypeAlias = Callable[[str, int, StepRunner], None]
"""Drives one attempt: migration id, epoch, and how to run its steps."""


class Engine(Protocol):
    """Runs attempts. Thread-safe: attempts at several migrations may run side by side."""

    def run(self, migration_id: str, epoch: int, attempt: Attempt) -> None:
        """Run an attempt to its end in this thread, and raise what it raised."""
        ...

    def close(self) -> None:
        """Stop, once no attempt runs any more. Idempotent."""
        ...


class PlainEngine:
    """Runs the steps one after another and remembers none of them.

    Enough where nothing outlives the process that steps could be looked up for: the
    agents of a `copy` end with their controller, and the next attempt starts others.
    """

    def run(self, migration_id: str, epoch: int, attempt: Attempt) -> None:
        """See Engine."""
        attempt(migration_id, epoch, lambda _name, do: do())

    def close(self) -> None:
        """See Engine."""
