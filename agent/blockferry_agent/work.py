"""One job: a flow in a thread of its own, from start to a final state."""

import logging
import os
import threading
import time
import uuid
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Final

from blockferry.errors import BlockferryError, CancelledError, InternalError, UsageError
from blockferry.v1 import agent_pb2
from blockferry.wire import to_proto
from blockferry_agent.assignments import Flow, Prepared
from blockferry_agent.sink import ReceiveFlow
from blockferry_agent.source import CopyFlow
from blockferry_agent.stageclock import summary

_log = logging.getLogger(__name__)


class Work:
    """One job; thread-safe."""

    def __init__(
        self, request: agent_pb2.StartJobRequest, device: Path, transfer_id: str, prepared: Prepared
    ) -> None:
        self.id: Final = uuid.uuid4().hex
        self.request: Final = request
        self.device: Final = device
        self.transfer_id: Final = transfer_id
        self._prepared = prepared
        self._lock = threading.Lock()
        self._ended = threading.Event()
        self._job = agent_pb2.Job(
            id=self.id, request_id=request.request_id, state=agent_pb2.JOB_STATE_RUNNING
        )
        self._job.start_time.GetCurrentTime()
        self._cpu_began = time.process_time()
        self._thread = threading.Thread(target=self._run, name=f"job-{self.id[:8]}", daemon=True)

    @property
    def flow(self) -> Flow:
        """Its inside."""
        return self._prepared.flow

    @property
    def ended(self) -> bool:
        """Whether it is in a final state."""
        return self._ended.is_set()

    @property
    def paused(self) -> bool:
        """Whether it holds because a controller wanted it to."""
        with self._lock:
            return self._job.state == agent_pb2.JOB_STATE_PAUSED

    def start(self) -> None:
        """Begin. Once."""
        self._thread.start()

    def _run(self) -> None:
        state = agent_pb2.JOB_STATE_SUCCEEDED
        error: BlockferryError | None = None
        try:
            self.flow.run()
        except CancelledError as cancelled:
            state, error = agent_pb2.JOB_STATE_CANCELLED, cancelled
        except BlockferryError as failure:
            state, error = agent_pb2.JOB_STATE_FAILED, failure
        except Exception as defect:  # noqa: BLE001 - ends the job, not the agent
            _log.exception("job %s", self.id)
            state = agent_pb2.JOB_STATE_FAILED
            error = InternalError("JOB_BROKEN", f"The job broke: {defect!r}")
        self._end(state, error)

    def _end(self, state: "agent_pb2.JobState.ValueType", error: BlockferryError | None) -> None:
        with self._lock:
            self.flow.report(self._job)
            self._job.state = state
            if error is not None:
                self._job.error.CopyFrom(to_proto(error))
            self._job.end_time.GetCurrentTime()
            # Only now: a figure that always grows would be news to every watcher.
            self._job.cpu.FromTimedelta(timedelta(seconds=time.process_time() - self._cpu_began))
            self._job.cpu_count = len(os.sched_getaffinity(0))
        self._prepared.release()
        # Before anybody knows: the agent may be waiting for nothing but this end, to leave.
        _log.info(
            "job %s %s%s; %s",
            self.id,
            agent_pb2.JobState.Name(state),
            f": {error}" if error else "",
            summary(self._job.stages),
        )
        self._ended.set()

    def wait(self, timeout_seconds: float) -> bool:
        """Wait for the end; whether it came."""
        return self._ended.wait(timeout_seconds)

    def snapshot(self) -> agent_pb2.Job:
        """The job as it is now; a copy."""
        with self._lock:
            if not self._job.HasField("end_time"):
                self.flow.report(self._job)
            job = agent_pb2.Job()
            job.CopyFrom(self._job)
            return job

    def cancel(self, reason: CancelledError) -> None:
        """Ask it to stop in order. Idempotent."""
        if not self.ended:
            self.flow.cancel(reason)

    def update(self, limit_bytes_per_second: int | None, paused: bool | None) -> None:
        """Change a copy job; what is None stays.

        Raises:
            UsageError: NOT_ADJUSTABLE or OUT_OF_RANGE.
        """
        flow = self.flow
        if not isinstance(flow, CopyFlow):
            raise UsageError(
                "NOT_ADJUSTABLE", "Only a copy job has a limit and a pause; ask the source."
            )
        if limit_bytes_per_second is not None:
            if limit_bytes_per_second < 0:
                raise UsageError("OUT_OF_RANGE", "A limit is 0 (none) or more bytes per second.")
            flow.set_limit(limit_bytes_per_second)
        if paused is not None:
            flow.set_paused(paused)
            with self._lock:
                if not self._job.HasField("end_time"):
                    states = (agent_pb2.JOB_STATE_RUNNING, agent_pb2.JOB_STATE_PAUSED)
                    self._job.state = states[paused]

    @property
    def knows_transfer(self) -> bool:
        """Whether it has the transfer's manifest in hand; a repair has not."""
        return self._prepared.manifest is not None

    def manifest_runs(self, first_chunk: int) -> Iterator[tuple[int, bytes]]:
        """Digests known so far; at a sink, up to the commit point."""
        manifest = self._prepared.manifest
        assert manifest is not None
        end = None
        if isinstance(self.flow, ReceiveFlow):
            end = self.flow.committed_chunks
        return manifest.runs(first_chunk, end)
