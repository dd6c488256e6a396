"""The two jobs of a transfer, watched together."""

import contextlib
import logging
import math
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Final

from blockferry.errors import (
    BlockferryError,
    CancelledError,
    InternalError,
    UnreachableError,
)
from blockferry.v1 import agent_pb2
from blockferry_controller.agents.port import Agent
from blockferry_controller.engine.away import AWAY
from blockferry_controller.events import Progress
from blockferry_controller.migration.context import Context, Side, need
from blockferry_controller.migration.steps.instances import instance_gone
from blockferry_controller.migration.steps.jobs import FINAL, outcome
from blockferry_controller.migration.steps.manifests import Keeper
from blockferry_controller.migration.steps.steer import Steering

_log = logging.getLogger(__name__)

WATCH_SECONDS: Final = 0.5
TICK_SECONDS: Final = 0.2
STOP_SECONDS: Final = 60.0
"""Longest wait for agents to finish the write in hand after a stop."""
SETTLE_SECONDS: Final = 5.0
"""Longest wait for the other job to end, too: its error may be the cause."""
QUIET_SECONDS: Final = 3.0
"""A job that has told nothing new for so long may have no instance any more."""
ASK_AGAIN_SECONDS: Final = 15.0
"""Pause between two questions to a cloud whether it has: a job may be paused for hours."""


@dataclass(slots=True)
class _Watch:
    """The newest word from one agent's job, kept by a thread of its own."""

    side: Side
    agent: Agent
    job: agent_pb2.Job
    error: BlockferryError | None = None
    heard_at: float = field(default_factory=time.monotonic)
    asking: threading.Thread | None = None
    thread: threading.Thread = field(init=False)

    def __post_init__(self) -> None:
        self.thread = threading.Thread(target=self._run, name="watch", daemon=True)
        self.thread.start()

    @property
    def ended(self) -> bool:
        """Whether nothing more can come of it."""
        return self.job.state in FINAL or self.error is not None

    def _run(self) -> None:
        try:
            for job in self.agent.watch_job(self.job.id, WATCH_SECONDS):
                self.job = job
                self.heard_at = time.monotonic()
        except BlockferryError as error:
            self._fail(error)
        except Exception as error:  # noqa: BLE001 - nobody else hears of it, and waits for ever
            self._fail(InternalError("UNEXPECTED", f"a defect of Blockferry: {error!r}"))

    def _fail(self, error: BlockferryError) -> None:
        """What breaks after the job's last word was heard changes nothing."""
        if self.job.state not in FINAL:
            self.error = self.error or error


class JobPair:
    """Both jobs of a transfer, watched together.

    Calls of `wait` come from one thread. Closing saves what is known.
    """

    def __init__(
        self,
        context: Context,
        source: agent_pb2.Job,
        sink: agent_pb2.Job,
        *,
        part: bool = False,
    ) -> None:
        """Begin to watch; with `part`, jobs that repair: how far the whole is, they do not know."""
        self._context = context
        self._part = part
        self._source = _Watch(context.source, need(context.source.agent), source)
        self._sink = _Watch(context.destination, need(context.destination.agent), sink)
        self._keeper = Keeper(context, None if part else self._sink.agent)
        self._steering = Steering(context, self._source.agent, source)
        self._asked_at = 0.0
        self._phase = "copy"

    @property
    def source(self) -> agent_pb2.Job:
        """The source's job as last heard."""
        return self._source.job

    @property
    def sink(self) -> agent_pb2.Job:
        """The sink's job as last heard."""
        return self._sink.job

    def wait(
        self, done: Callable[[], bool], *, phase: str = "copy", until: float = math.inf
    ) -> bool:
        """Return when `done()`; progress is kept and told meanwhile.

        Args:
            done: Asked again and again.
            phase: For people.
            until: On the monotonic clock; then it returns False, not done.

        Raises:
            UnreachableError: INSTANCE_GONE, AGENT_SILENT.
            BlockferryError: a job's own error, the sink's before the source's, since
                a source usually fails because its sink did; or `Context.check`'s.
        """
        self._phase = phase
        while not self._ended(done):
            try:
                self._context.check()
            except CancelledError:
                self._stop_jobs(STOP_SECONDS)
                raise
            self._steering.follow(self.source)
            self._source.thread.join(TICK_SECONDS if self._source.thread.is_alive() else 0)
            if not self._source.thread.is_alive():
                self._sink.thread.join(TICK_SECONDS)
            self._note()
            self._look_for_instances()
            if time.monotonic() >= until:
                return False
        self._note()
        return True

    def _ended(self, done: Callable[[], bool]) -> bool:
        for watch in (self._sink, self._source):
            error = outcome(watch.job) or watch.error
            if error is not None:
                self._stop_jobs(SETTLE_SECONDS)
                self._note()
                found = self._sink.job.differing
                self._context.differing = tuple((one.start_bytes, one.end_bytes) for one in found)
                cause = outcome(self._sink.job) or self._sink.error
                # A sink that was only stopped, by us just now, is no cause.
                raise error if cause is None or isinstance(cause, CancelledError) else cause
        return done()

    def _stop_jobs(self, wait_seconds: float) -> None:
        for watch in (self._source, self._sink):
            if not watch.ended:
                with contextlib.suppress(BlockferryError):
                    watch.agent.cancel_job(watch.job.id)
                watch.thread.join(wait_seconds)

    def _look_for_instances(self) -> None:
        """An agent that is silent is given a minute; one without an instance, none."""
        now = time.monotonic()
        for watch in (self._sink, self._source):
            quiet_since = max(watch.heard_at, self._asked_at + ASK_AGAIN_SECONDS - QUIET_SECONDS)
            asked = watch.asking is not None and watch.asking.is_alive()
            if not asked and not watch.ended and now - quiet_since > QUIET_SECONDS:
                self._asked_at = now
                # An API that is away is tried for minutes, in which people want to be
                # heard, and progress to be kept.
                watch.asking = threading.Thread(
                    target=self._ask_cloud, args=(watch,), name="instance gone", daemon=True
                )
                watch.asking.start()

    def _ask_cloud(self, watch: _Watch) -> None:
        try:
            gone = instance_gone(self._context, watch.side)
        except BlockferryError:
            # A cloud that cannot tell is no reason to stop: bytes need no cloud.
            return
        except Exception:  # noqa: BLE001 - the end may have closed its connection meanwhile
            _log.debug("asking for the %s instance", watch.side.label, exc_info=True)
            return
        watch.error = watch.error or gone

    def _note(self) -> None:
        """Have the context know how far it is; the keeper tells it when it is kept."""
        context = self._context
        met = context.met.get(self.source.id)
        context.source_jobs[self.source.id] = _since(met, self.source.progress)
        sink = context.progress if self._part else self.sink.progress
        context.progress = _merge(context.source_jobs.values(), sink, self._phase)

    def close(self) -> None:
        """Keep and tell what is known, unless somebody else drives the migration now.

        The connection to an agent that cannot be heard is given up.
        """
        for watch in (self._source, self._sink):
            if isinstance(watch.error, UnreachableError) and watch.side.agent is watch.agent:
                watch.agent.close()
                watch.side.agent = None
        self._note()
        # What it was closed of counts, and whoever resumes it asks the sink again.
        with contextlib.suppress(BlockferryError, *AWAY):
            self._keeper.close(lost=self._sink.side.agent is None)


def _since(met: agent_pb2.JobProgress | None, now: agent_pb2.JobProgress) -> agent_pb2.JobProgress:
    """What a source's job did in this attempt, which has `met` it at work, or done."""
    if met is None:
        return now
    since = agent_pb2.JobProgress()
    since.CopyFrom(now)
    since.resumed_from_bytes = met.resumed_from_bytes
    since.sent_bytes -= met.sent_bytes
    since.wire_bytes -= met.wire_bytes
    since.reconnects -= met.reconnects
    return since


def _merge(
    sources: Iterable[agent_pb2.JobProgress], sink: agent_pb2.JobProgress | Progress, phase: str
) -> Progress:
    """The sink knows what is safe; the source's jobs of this attempt, what was sent."""
    first, *later = sources
    jobs = [first, *later]
    # Of one whose agent died at once no more was seen than that it had been started.
    begun = next((job for job in jobs if job.resumed_from_bytes or job.sent_bytes), first)
    # Neither a repair nor a mere question for the verdict takes the transfer up again.
    again = [job for job in later if job.resumed_from_bytes < job.size_bytes == first.size_bytes]
    return Progress(
        phase=phase,
        size_bytes=sink.size_bytes or first.size_bytes,
        committed_bytes=sink.committed_bytes,
        data_bytes=sink.data_bytes,
        zero_bytes=sink.zero_bytes,
        resumed_from_bytes=begun.resumed_from_bytes,
        sent_bytes=sum(job.sent_bytes for job in jobs),
        wire_bytes=sum(job.wire_bytes for job in jobs),
        verified_bytes=sink.verified_bytes,
        reconnects=sum(job.reconnects for job in jobs) + len(again),
    )
