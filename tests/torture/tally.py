"""What the blows did, counted."""

import threading
from collections import Counter
from dataclasses import dataclass, field


class Broken(AssertionError):  # noqa: N818 - a promise is broken, not the program
    """A promise that was not kept; the message says which, and how to see it again."""


@dataclass
class Tally:
    """Counts by what was hit and how; thread-safe.

    Attributes:
        blows: (theatre, kind of blow) -> how often.
        attempts: theatre -> runs and resumes until all had succeeded.
        broken: Promises that were not kept, for people.
    """

    blows: Counter[tuple[str, str]] = field(default_factory=Counter)
    rounds: Counter[str] = field(default_factory=Counter)
    attempts: Counter[str] = field(default_factory=Counter)
    broken: list[str] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def blow(self, theatre: str, kind: str) -> None:
        """One kill or fault that did happen."""
        with self._lock:
            self.blows[theatre, kind] += 1

    def ended(self, theatre: str, attempts: int) -> None:
        """A migration that ended well after `attempts` runs."""
        with self._lock:
            self.rounds[theatre] += 1
            self.attempts[theatre] += attempts

    def fail(self, message: str) -> None:
        """A promise that was not kept."""
        with self._lock:
            self.broken.append(message)

    @property
    def total(self) -> int:
        """Blows in all."""
        return sum(self.blows.values())

    def times(self, theatre: str) -> int:
        """Blows in one theatre."""
        with self._lock:
            return sum(times for (name, _), times in self.blows.items() if name == theatre)

    def table(self) -> str:
        """The result, for people."""
        width = max([len(kind) for _, kind in self.blows] + [20])
        lines = [f"{'what':<12} {'blow':<{width}} {'times':>6}"]
        for (theatre, kind), times in sorted(self.blows.items()):
            lines.append(f"{theatre:<12} {kind:<{width}} {times:>6}")
        for theatre in sorted(self.rounds):
            rounds, attempts = self.rounds[theatre], self.attempts[theatre]
            lines.append(f"{theatre}: {rounds} ended equal and clean, in {attempts} runs")
        lines.append(f"{self.total} blows, {len(self.broken)} promises broken")
        return "\n".join([*lines, *self.broken])
