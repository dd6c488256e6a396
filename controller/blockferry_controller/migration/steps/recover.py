"""Goes on within an attempt when an agent, or its whole instance, was lost.

What is there is taken first: a server that was switched off is switched on, an
agent that was started again knows its journal. Where nobody answers, server and
all, a new one is made, and given what the controller has kept. Both jobs are
started anew; the bytes below the commit point are not sent again.
"""

import contextlib
from collections.abc import Callable
from typing import Final, TypeVar

from blockferry.errors import BlockferryError, DeadlineError, UnreachableError
from blockferry_controller.agents.port import Agent
from blockferry_controller.migration.context import Context, Side, need
from blockferry_controller.migration.steps.attach import attach
from blockferry_controller.migration.steps.instances import boot
from blockferry_controller.migration.steps.reach import reach

T = TypeVar("T")

LIVES: Final = 3
"""How often in one step: a host that kills each instance is not to be fed for ever."""
AGAIN_SECONDS: Final = 120.0
"""Longest wait for the agent of an instance that was there before: a reboot takes 70 s."""
_JOB_LOST: Final = frozenset({"JOB_NOT_FOUND", "JOB_CANCELLED"})
"""What an agent says, or said last, that was stopped and started behind our back."""


def carry_on(context: Context, work: Callable[[], T]) -> T:
    """Do `work`; when it lost an agent, bring one back and do it again, LIVES times.

    Raises:
        BlockferryError: `work`'s error that is not the loss of an agent, or is one too many.
    """
    for lives in range(LIVES, 0, -1):
        try:
            return work()
        except BlockferryError as error:
            lost = [side for side in context.sides if _is_lost(side, error)]
            if not lost and error.reason not in _JOB_LOST:
                raise
            context.check()
            context.note(f"{error.message}; going on ({lives - 1} more times)", level="warning")
        for side in lost:
            _bring_back(context, side)
    return work()


def _is_lost(side: Side, error: BlockferryError) -> bool:
    """Whether nobody answers there; its connection is closed then."""
    if side.agent is not None and isinstance(error, UnreachableError | DeadlineError):
        # The client has tried for long before it names an address in an error.
        named = error.metadata.get("address")
        if named == side.agent_address or (not named and not _answers(side.agent)):
            side.agent.close()
            side.agent = None
    return side.agent is None


def _answers(agent: Agent) -> bool:
    try:
        agent.describe()
    except (UnreachableError, DeadlineError):
        return False
    return True


def _bring_back(context: Context, side: Side) -> None:
    before = need(side.server).id
    try:
        _boot_again(context, side)
        if need(side.server).id == before:
            reach(context, side, within_seconds=AGAIN_SECONDS)
            return
    except BlockferryError as error:
        context.check()
        context.note(f"{error.message}; taking a new instance", level="warning")
        with contextlib.suppress(BlockferryError):
            side.cloud.detach_volume(before, need(side.volume).id)
        side.cloud.delete_server(before)
        _boot_again(context, side)
    reach(context, side)


def _boot_again(context: Context, side: Side) -> None:
    side.server = None
    boot(context, side)
    attach(side)
