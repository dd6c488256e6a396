"""What becomes of an item whose migration has ended. Pure.

Rules:
* What was stopped on purpose, or is held by somebody else for the moment, waits again and
  counts as no attempt. A quota that is used up is waited for.
* What may pass by itself (no answer, no progress) is tried again, with growing pauses, as
  often as the fleet file says. Everything else has failed.
* A cloud whose API is away is tried AWAY_TRIES times at least, whatever the file says: with
  their pauses these outlast three quarters of an hour, and a service that is restarted on a
  Saturday night must not have emptied the fleet by then. It is no volume's fault, but may be
  of one volume only: so it is not waited for without end.
"""

from datetime import datetime, timedelta
from typing import Final

from msgspec import Struct

from blockferry.errors import BlockferryError, InternalError
from blockferry_controller.engine.away import STATE_AWAY
from blockferry_controller.engine.fleet_records import ItemRecord, ItemState
from blockferry_controller.engine.pairs import PAIRS_TAKEN
from blockferry_controller.fleet.admission import Reason, Why
from blockferry_controller.migration.context import CANCEL_REQUESTED, INTERRUPTED, LEASE_LOST

_QUOTA_PREFIX: Final = "QUOTA_"
_AWAY: Final = frozenset({"CLOUD_FAILS", "CLOUD_UNREACHABLE", "CLOUD_LIMITS_RATE"})
AWAY_TRIES: Final = 8
"""Each has sat the outage out for two minutes when it gives up (clouds/openstack/waiting.py)."""
_BUSY: Final = STATE_AWAY | {"MIGRATION_BUSY", LEASE_LOST, PAIRS_TAKEN, "CONTROLLER_PORT_TAKEN"}
BUSY_SECONDS: Final = 5.0
QUOTA_SECONDS: Final = 30.0
_RETRY_SECONDS: Final = 15.0
_RETRY_SECONDS_MAX: Final = 900.0


class Outcome(Struct, frozen=True):
    """The item's new state and what goes with it; see ItemRecord."""

    state: ItemState
    why: str = ""
    reason: str = ""
    attempts: int = 0
    not_before: datetime | None = None


def judge(
    item: ItemRecord,
    error: BaseException | None,
    *,
    most_attempts: int,
    stopped: Reason | None,
    now: datetime,
) -> Outcome:
    """What `error`, None for success, makes of `item`.

    Args:
        item: As it was when it ran.
        error: What its migration raised.
        most_attempts: How often it may be tried.
        stopped: Why we stopped it, if we did.
        now: The time.
    """
    if error is None:
        return Outcome(ItemState.SUCCEEDED, attempts=item.attempts)
    if not isinstance(error, BlockferryError):
        error = InternalError("UNEXPECTED", f"a defect of Blockferry: {error!r}")
    waits = _waits(item, error, stopped, now)
    if waits is not None:
        return waits
    if error.reason == CANCEL_REQUESTED:
        return Outcome(ItemState.CANCELLED, error.reason, error.message, item.attempts)
    tried = item.attempts + 1
    most = max(most_attempts, AWAY_TRIES) if error.reason in _AWAY else most_attempts
    if error.meaning.retryable and tried < most:
        pause = min(_RETRY_SECONDS * 2.0**item.attempts, _RETRY_SECONDS_MAX)
        said = f"attempt {tried} of {most} failed of {error.reason}: {error.message}"
        after = now + timedelta(seconds=pause)
        return Outcome(ItemState.WAITING, Why.RETRY.value, said, tried, after)
    return Outcome(ItemState.FAILED, error.reason, error.message, tried)


def _waits(
    item: ItemRecord, error: BlockferryError, stopped: Reason | None, now: datetime
) -> Outcome | None:
    waiting, tried = ItemState.WAITING, item.attempts
    if error.reason == INTERRUPTED:
        why = stopped or Reason(Why.PAUSED, "the batch was stopped; run it again")
        return Outcome(waiting, why.why.value, why.text, tried)
    if error.reason in _BUSY:
        after = now + timedelta(seconds=BUSY_SECONDS)
        return Outcome(waiting, Why.RETRY.value, error.message, tried, after)
    if error.reason.startswith(_QUOTA_PREFIX):
        after = now + timedelta(seconds=QUOTA_SECONDS)
        return Outcome(waiting, Why.QUOTA.value, error.message, tried, after)
    return None
