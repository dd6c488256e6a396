"""What happens to a migration, seen from the state database by another process.

Whoever drives a migration writes down its steps and, once a second, how far it
is. That is told again here as the events it came from.
"""

from collections.abc import Iterator
from typing import Final

from blockferry_controller.engine.records import MigrationRecord, State
from blockferry_controller.engine.state import StateStore
from blockferry_controller.events import (
    Ended,
    Event,
    Noted,
    Progress,
    Progressed,
    StepFinished,
    StepStarted,
)
from blockferry_controller.migration.steps import STEPS
from blockferry_controller.migration.steps.finish import HANDING_OVER

_GOING: Final = frozenset(
    state.value for state in (State.PENDING, State.WAITING, State.RUNNING, State.PAUSED)
)
_DRIVEN: Final = frozenset((State.RUNNING.value, State.PAUSED.value))


class Watching:
    """One migration as one onlooker has seen it so far. Not thread-safe."""

    def __init__(self, store: StateStore, migration_id: str) -> None:
        self._store = store
        self._migration_id = migration_id
        self._state = ""
        self._epoch = 0
        self._steps = 0
        self._started = 0
        self._progress = Progress()

    def look(self) -> tuple[MigrationRecord, bool]:
        """The migration now, and whether nothing more comes of it unless somebody resumes it."""
        record = self._store.get(self._migration_id)
        return record, record.state not in _GOING

    def events(self, record: MigrationRecord) -> Iterator[Event]:
        """What has happened since the last call."""
        own = record.id
        if record.epoch != self._epoch:
            self._epoch, self._steps, self._started = record.epoch, 0, 0
        mine = [step for step in record.steps if step.epoch == record.epoch]
        for step in mine[self._steps :]:
            yield StepFinished(own, step.name, step.seconds, step.detail)
        self._steps = len(mine)
        index = self._index(record, mine[-1].name if mine else "")
        if record.state in _DRIVEN and self._started < index <= len(STEPS):
            self._started = index
            yield StepStarted(own, STEPS[index - 1].name, index, len(STEPS))
        if record.progress != self._progress:
            self._progress = record.progress
            yield Progressed(own, record.progress)
        if record.state != self._state:
            yield from self._told(record)
            self._state = record.state

    @staticmethod
    def _index(record: MigrationRecord, last: str) -> int:
        """Of the step that runs after `last`, from 1."""
        names = [step.name for step in STEPS]
        if last in names:
            return names.index(last) + 2
        return len(STEPS) if HANDING_OVER in record.facts else 1

    def _told(self, record: MigrationRecord) -> Iterator[Event]:
        if record.state == State.PAUSED.value:
            yield Noted(record.id, "info", "paused")
        elif self._state == State.PAUSED.value and record.state == State.RUNNING.value:
            yield Noted(record.id, "info", "going on")
        elif record.state not in _GOING:
            yield Ended(record.id, record.state, record.message)
