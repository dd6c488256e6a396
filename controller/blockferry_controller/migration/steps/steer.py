"""What people want of a running copy, brought to the source's job.

A paused source sends nothing; what it has sent is committed, its instance and
the lease stay. A limit counts the bytes of frames, after compression.
"""

import time
from typing import Final

from blockferry.errors import BlockferryError
from blockferry.v1 import agent_pb2
from blockferry_controller.agents.port import Agent
from blockferry_controller.engine.away import AWAY
from blockferry_controller.engine.records import State
from blockferry_controller.engine.requests import Want, Wants
from blockferry_controller.migration.context import Context
from blockferry_controller.migration.steps.jobs import FINAL

AGAIN_SECONDS: Final = 2.0
"""Pause after an agent that could not be told."""
ALL_SENT: Final = "everything was sent before it could be told"


class Steering:
    """Keeps one copy job as people want it. Calls come from one thread.

    Args:
        context: Whose wants they are.
        source: The job's agent.
        job: As it is found; an earlier controller may have paused it.
    """

    def __init__(self, context: Context, source: Agent, job: agent_pb2.Job) -> None:
        self._context = context
        self._source = source
        self._told: tuple[bool, int | None] = (job.state == agent_pb2.JOB_STATE_PAUSED, None)
        self._again_at = 0.0
        self._answered = Wants()

    def follow(self, job: agent_pb2.Job) -> None:
        """Tell the agent what has changed since the last call; cheap when nothing has."""
        if time.monotonic() < self._again_at and job.state not in FINAL:
            return
        try:
            self._follow(job, self._context.wants())
        except AWAY:
            # A database that is away hears of it later.
            self._again_at = time.monotonic() + AGAIN_SECONDS

    def _follow(self, job: agent_pb2.Job, wants: Wants) -> None:
        if job.state in FINAL:
            self._show(paused=False)
            self._answer(wants, ALL_SENT)
            return
        wanted = (wants.paused, wants.limit_bytes_per_second)
        if wanted != self._told:
            try:
                self._source.update_job(
                    job.id,
                    paused=wants.paused,
                    limit_bytes_per_second=wants.limit_bytes_per_second,
                )
            except BlockferryError:
                # An agent that is lost is the watch's business, and asked anew in time.
                self._again_at = time.monotonic() + AGAIN_SECONDS
                return
            self._told = wanted
        self._show(paused=wants.paused)
        self._answer(wants)

    def _show(self, *, paused: bool) -> None:
        context = self._context
        if paused == context.paused:
            return
        state, told = (State.PAUSED, "paused") if paused else (State.RUNNING, "going on")
        context.store.set_state(context.migration_id, state, epoch=context.epoch)
        context.paused = paused
        context.note(told)

    def _answer(self, wants: Wants, answer: str = "") -> None:
        if wants is self._answered:
            return
        for request in wants.by_want.values():
            if request.want is not Want.CANCELLED and request.answered_at is None:
                self._context.store.requests.answer(self._context.migration_id, request, answer)
        self._answered = wants
