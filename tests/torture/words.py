"""What other processes say to a running migration: hold, go on, keep to another limit.

The torture is the other process. `blockferry pause`, `resume` and `set` leave the same
words in the same database; as processes, most would come when nothing moves any more.

Promises, each checked here or at the end of the round:
* What is paused stands still: no byte is committed until it is told to go on.
* It goes on in the same run, sends nothing twice, and ends well by itself.
* A limit is taken, or refused because the migration has ended; it never ends a run.
"""

import random
import time
from collections.abc import Mapping
from contextlib import closing
from typing import Final

from blockferry.errors import PreconditionError
from blockferry.limits import MIB
from blockferry_controller.engine.records import MigrationRecord, State
from blockferry_controller.engine.state import StateStore
from blockferry_controller.migration.asking import Asking
from tests.torture.runs import PAUSE, Run
from tests.torture.tally import Broken

ANSWER_SECONDS: Final = 30.0
"""The driver looks once a second; the rest is for a machine that is tortured."""
STILL_SECONDS: Final = 1.5
"""Longer than what was under way takes to be committed and written down."""
SETTLE_SECONDS: Final = 30.0
LIMITS: Final = (0, 4 * MIB, 12 * MIB, 64 * MIB)
"""Bytes per second; 0 is unlimited."""


def say(kind: str, run: Run, environment: Mapping[str, str], dice: random.Random) -> bool:
    """PAUSE and then go on, or LIMIT; False when there was nothing to hold any more.

    Raises:
        Broken: it was told to hold, said that it does, and did not.
    """
    with closing(StateStore.open(environment["BLOCKFERRY_STATE"])) as store:
        asking = Asking(store, answer_seconds=ANSWER_SECONDS)
        try:
            if kind != PAUSE:
                return asking.limit(run.migration_id, dice.choice(LIMITS)).answer == ""
            held = asking.pause(run.migration_id).answered_at is not None
        except PreconditionError:
            return False
        try:
            if held:
                _check_still(store, run.migration_id)
            return held
        finally:
            asking.go_on(run.migration_id)


def _check_still(store: StateStore, migration_id: str) -> None:
    """Wait until what was under way is committed; from then on nothing moves."""
    deadline = time.monotonic() + SETTLE_SECONDS
    seen, since = store.get(migration_id), time.monotonic()
    while time.monotonic() - since < STILL_SECONDS:
        if time.monotonic() > deadline:
            raise Broken(f"paused, and still moving at {seen.progress.committed_bytes}")
        time.sleep(0.1)
        now = store.get(migration_id)
        if _has_all(now):
            return
        if now.progress.committed_bytes != seen.progress.committed_bytes:
            seen, since = now, time.monotonic()
    if now.state != State.PAUSED.value:
        raise Broken(f"paused, and {now.state} at {now.progress.committed_bytes}")


def _has_all(record: MigrationRecord) -> bool:
    """Whether everything had been sent when it was told: that runs to its end."""
    return record.progress.committed_bytes == record.size_bytes
