"""One attempt at a migration: the steps in order, and back when one fails."""

import time

from blockferry.errors import BlockferryError, CancelledError
from blockferry_controller.engine.attempt import StepRunner
from blockferry_controller.engine.away import AWAY
from blockferry_controller.events import Noted, StepFinished, StepStarted
from blockferry_controller.migration.context import CANCEL_REQUESTED, LEASE_LOST, Context
from blockferry_controller.migration.steps import STEPS, Step
from blockferry_controller.migration.steps.finish import HANDING_OVER


def run(context: Context, run_step: StepRunner) -> None:
    """Do every step; when one fails, undo what was done and raise its error.

    A migration of which bytes are safe at the destination stays resumable: the
    new volume, its digests and the keys are kept, all else is removed. One that
    another controller has taken over is not touched any more.
    """
    # A volume that is handed over carries no tag of ours: to look for it would
    # be to make another one.
    handing_over = HANDING_OVER in context.store.get(context.migration_id).facts
    first = len(STEPS) if handing_over else 1
    try:
        for index, step in enumerate(STEPS[first - 1 :], start=first):
            context.confirm()
            _do(context, step, index, run_step)
    except BlockferryError as error:
        if error.reason != LEASE_LOST:
            resumable = error.reason != CANCEL_REQUESTED and context.progress.committed_bytes > 0
            _go_back(context, error, resumable=resumable)
        raise
    except Exception as error:
        _go_back(context, error, resumable=True)
        raise


def _go_back(context: Context, error: Exception, *, resumable: bool) -> None:
    """Undo all, if this is still ours to undo; while the database is away, nobody can tell."""
    try:
        # What an agent refuses an old controller reads like any error of its own.
        _raise_if_lost(context)
        undo(context, resumable=resumable)
    except AWAY:
        raise error from error.__cause__


def _raise_if_lost(context: Context) -> None:
    try:
        context.confirm()
    except CancelledError:
        # Asked to stop, which is no reason to leave things behind.
        return


def _do(context: Context, step: Step, index: int, run_step: StepRunner) -> None:
    own = context.migration_id
    context.tell(StepStarted(own, step.name, index, len(STEPS)))
    start = time.monotonic()
    detail = run_step(step.name, lambda: step.do(context))
    seconds = time.monotonic() - start
    context.written(context.store.add_step(own, context.epoch, step.name, seconds, detail))
    context.tell(StepFinished(own, step.name, seconds, detail))


def undo(context: Context, *, resumable: bool) -> list[str]:
    """Undo all steps, last first; what fails is told and left for `cleanup`.

    Returns:
        What could not be undone, for people.

    Raises:
        BusyError: LEASE_LOST, what is there is another controller's.
    """
    left: list[str] = []
    for step in reversed(STEPS):
        context.fence()
        try:
            # What could not be undone may be met again: then its keys are needed.
            step.undo(context, resumable=resumable or bool(left))
        except BlockferryError as error:
            if error.reason == LEASE_LOST:
                raise
            left.append(f"{step.name}: {error.message}")
            context.tell(
                Noted(
                    context.migration_id,
                    "warning",
                    f"undoing {step.name} failed: {error.message}; "
                    "`blockferry cleanup` tries again",
                )
            )
    return left
