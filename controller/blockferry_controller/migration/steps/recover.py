"""Goes on within an attempt when an agent, or its whole instance, was lost.

What is there is taken first: a server that was switched off is switched on, an
agent that was started again knows its journal. Where nobody answers, server and
all, a new one is made, and given what the controller has kept. Then the step is
done again: jobs are started anew; the bytes below the commit point are not sent
again.

An instance that did not boot is replaced, too, once: a root disk that comes late, or a
host that fails, is not the image's fault, and one more boot costs a minute.

What several migrations share is replaced when none of them can use it any more: each says
so of its own, and waits for the others. The first to come boots, and all go on there.
"""

import contextlib
from typing import Final

from blockferry.errors import BlockferryError, DeadlineError, NotFoundError, UnreachableError
from blockferry.identity import Role
from blockferry_controller.agents.port import Agent
from blockferry_controller.clouds.port import ResourceKind
from blockferry_controller.migration.console import BOOT_FAILED
from blockferry_controller.migration.context import Context, Side, need
from blockferry_controller.migration.pool import booting
from blockferry_controller.migration.steps.attach import attach, shared_with_others
from blockferry_controller.migration.steps.instances import boot, instance_gone
from blockferry_controller.migration.steps.reach import (
    AGAIN_SECONDS,
    NEVER_CAME,
    await_agent,
    has_been_met,
)
from blockferry_controller.migration.steps.step import Step
from blockferry_controller.migration.waiting import attempts

LIVES: Final = 3
"""How often in one step: a host that kills each instance is not to be fed for ever."""
AGREE_SECONDS: Final = 300.0
"""Longest wait for the others to find an instance of no use, too: who hears nothing of an agent
tries for a minute, and then for two more whether it comes back."""
_JOB_LOST: Final = frozenset({"JOB_NOT_FOUND", "JOB_CANCELLED"})
"""What an agent says, or said last, that was stopped and started behind our back."""


class Recovering:
    """A step that needs the pair, done again when it lost one of them, LIVES times."""

    def __init__(self, step: Step) -> None:
        self._step = step

    @property
    def name(self) -> str:
        """The step's own."""
        return self._step.name

    def do(self, context: Context) -> str:
        """Do the step.

        Raises:
            BlockferryError: the step's error that is not the loss of an agent, or is one
                too many.
        """
        # One that was lost in the moment in which the step before was done, needed nothing yet.
        lost = [side for side in context.sides if side.reached and side.agent is None]
        booted_again: set[Role] = set()
        for lives in range(LIVES, 0, -1):
            try:
                _bring_back(context, lost)
                return self._step.do(context)
            except BlockferryError as error:
                lost = [side for side in context.sides if _is_lost(context, side, error)]
                lost += _boot_failed(context, error, booted_again)
                if not lost and error.reason not in _JOB_LOST:
                    raise
                context.check()
                context.note(f"{error.message}; going on ({lives - 1} more times)", level="warning")
        _bring_back(context, lost)
        return self._step.do(context)

    def undo(self, context: Context, *, resumable: bool) -> None:
        """Undo the step."""
        self._step.undo(context, resumable=resumable)


def _is_lost(context: Context, side: Side, error: BlockferryError) -> bool:
    """Whether nobody answers there; its connection is closed then."""
    if not side.reached:
        return _is_lost_unmet(context, side, error)
    if side.agent is not None and isinstance(error, UnreachableError | DeadlineError):
        # The client has tried for long before it names an address in an error.
        named = error.metadata.get("address")
        if named == side.agent_address or (not named and not _answers(side.agent)):
            side.agent.close()
            side.agent = None
    return side.agent is None


def _is_lost_unmet(context: Context, side: Side, error: BlockferryError) -> bool:
    """Whether an instance that this attempt has not met yet is gone, or as good as gone."""
    if not isinstance(error, UnreachableError | DeadlineError | NotFoundError):
        return False
    if side.server is None:
        return error.reason == "SERVER_NOT_FOUND"
    if error.reason == NEVER_CAME and error.metadata.get("role") == side.role.value:
        return has_been_met(context, side)
    # A cloud that cannot tell leaves the error as it is.
    with contextlib.suppress(BlockferryError):
        return instance_gone(context, side) is not None
    return False


def _boot_failed(context: Context, error: BlockferryError, before: set[Role]) -> list[Side]:
    """The side whose instance did not boot, which is gone then; none if one was `before`."""
    for side in context.sides:
        failed = error.reason == BOOT_FAILED and error.metadata.get("role") == side.role.value
        if failed and side.role not in before:
            before.add(side.role)
            _let_go(context, side, error)
            return [side]
    return []


def _answers(agent: Agent) -> bool:
    try:
        agent.describe()
    except (UnreachableError, DeadlineError):
        return False
    return True


def _bring_back(context: Context, lost: list[Side]) -> None:
    for side in lost:
        # Lost once more on the way, it is no agent of this attempt.
        side.reached = False
        _bring_one_back(context, side)


def _bring_one_back(context: Context, side: Side) -> None:
    before = "" if side.server is None else side.server.id
    try:
        _boot_again(context, side)
        if need(side.server).id == before:
            await_agent(context, side, within_seconds=AGAIN_SECONDS)
            return
    except BlockferryError as error:
        context.check()
        context.note(f"{error.message}; taking a new instance", level="warning")
        _let_go(context, side, error, before)
        _boot_again(context, side)
    await_agent(context, side)


def _let_go(context: Context, side: Side, error: BlockferryError, server_id: str = "") -> None:
    """Delete the side's server, or the one named, for `error`; its volume is free again."""
    server_id = server_id or ("" if side.server is None else side.server.id)
    if server_id:
        _agree(context, side, error, server_id)
        with contextlib.suppress(BlockferryError):
            side.cloud.detach_volume(server_id, need(side.volume).id)
        side.cloud.delete_server(server_id)
    side.server = None


def _agree(context: Context, side: Side, error: BlockferryError, server_id: str) -> None:
    """Wait until no guest of the pair has a use for the instance any more.

    Raises:
        UnreachableError: INSTANCE_SHARED.
    """
    if context.shared is None or context.shared.lanes == 1:
        return
    for _ in attempts(context, AGREE_SECONDS):
        if context.store.pairs.condemn(context.shared.held, server_id):
            return
        there = side.cloud.find_resources(context.pair_id, {ResourceKind.SERVER})
        if server_id not in {one.id for one in there}:
            return
    raise shared_with_others(context, side, error)


def _boot_again(context: Context, side: Side) -> None:
    side.server = None
    with booting(context):
        boot(context, side)
    attach(context, side)
