"""What the agents of all migrations were commanded, by whom and of which epoch.

A migration is driven twice when an agent of it obeys an epoch after another has obeyed a
higher one, or when two processes command in one epoch.
"""

import threading
from collections.abc import Iterable
from dataclasses import dataclass, field


@dataclass(slots=True)
class _Log:
    """Of one migration: who commanded in each epoch, and what went wrong."""

    drivers: dict[int, set[int]] = field(default_factory=dict)
    highest: int = 0
    late: int = 0


@dataclass(frozen=True, slots=True)
class Summary:
    """Of all migrations.

    Attributes:
        commands: That were obeyed.
        refused: Of an epoch that was over, at the agent.
        again: Migrations that a later attempt went on with.
        taken_over: Migrations with more than one driver.
        late: Obeyed after a higher epoch.
        shared: Epochs with more than one driver.
    """

    migrations: int
    commands: int
    refused: int
    again: int
    taken_over: int
    late: int
    shared: int


class Journal:
    """See the module. Thread-safe."""

    def __init__(self) -> None:
        self._logs: dict[str, _Log] = {}
        self._lock = threading.Lock()
        self._commands = self._refused = 0

    def obeyed(self, migration_id: str, epoch: int, pid: int) -> None:
        """An agent does what it was told."""
        with self._lock:
            log = self._logs.setdefault(migration_id, _Log())
            log.drivers.setdefault(epoch, set()).add(pid)
            log.late += epoch < log.highest
            log.highest = max(log.highest, epoch)
            self._commands += 1

    def refused(self) -> None:
        """An agent knows a higher epoch."""
        with self._lock:
            self._refused += 1

    def driven(self, migration_ids: Iterable[str], pid: int) -> int:
        """How many of these a process has commanded, in their latest epoch."""
        with self._lock:
            logs = (self._logs.get(own) for own in migration_ids)
            return sum(log is not None and pid in log.drivers[log.highest] for log in logs)

    def summary(self) -> Summary:
        """All of it."""
        with self._lock:
            logs = list(self._logs.values())
            return Summary(
                migrations=len(logs),
                commands=self._commands,
                refused=self._refused,
                again=sum(len(log.drivers) > 1 for log in logs),
                taken_over=sum(len(set().union(*log.drivers.values())) > 1 for log in logs),
                late=sum(log.late for log in logs),
                shared=sum(len(pids) > 1 for log in logs for pids in log.drivers.values()),
            )
