"""The jobs of one agent process: start, watch, steer, stop.

Rules:
* A request_id always means the same job.
* One job a device and one a transfer; anything else is BUSY.
* Jobs end once, in SUCCEEDED, FAILED or CANCELLED; the last ones are remembered.
"""

import logging
import threading
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Final

from blockferry.errors import BusyError, CancelledError, NotFoundError, UsageError
from blockferry.v1 import agent_pb2
from blockferry_agent.assignments import Workshop, find_device
from blockferry_agent.blockdev import same_device
from blockferry_agent.sink import ReceiveFlow
from blockferry_agent.source import CopyFlow
from blockferry_agent.work import Work

_log = logging.getLogger(__name__)

_REMEMBERED: Final = 1000
_SHORTEST_WATCH_SECONDS: Final = 0.05


class JobRegistry:
    """All jobs of the process; thread-safe."""

    def __init__(self, workshop: Workshop) -> None:
        self._workshop = workshop
        self._lock = threading.Lock()
        self._works: dict[str, Work] = {}
        self._by_request: dict[str, Work] = {}
        self._stopping = False

    def start(self, request: agent_pb2.StartJobRequest) -> agent_pb2.Job:
        """Start a job, or return the one that this request_id started.

        Raises:
            UsageError: REQUEST_INVALID.
            BusyError: BUSY, AGENT_STOPPING.
            BlockferryError: the device cannot be used; see Workshop.prepare.
        """
        if not request.request_id or request.WhichOneof("spec") is None:
            raise UsageError("REQUEST_INVALID", "A job needs a request_id and one kind of work.")
        with self._lock:
            known = self._by_request.get(request.request_id)
            if known is None:
                known = self._start_new(request)
        return known.snapshot()

    def _start_new(self, request: agent_pb2.StartJobRequest) -> Work:
        if self._stopping:
            raise BusyError("AGENT_STOPPING", "This agent is stopping; try again when it is back.")
        spec = getattr(request, request.WhichOneof("spec") or "")
        device = find_device(spec.device)
        transfer_id = getattr(spec, "transfer_id", "")
        self._refuse_busy(device, transfer_id)
        work = Work(request, device, transfer_id, self._workshop.prepare(request, device))
        self._works[work.id] = self._by_request[request.request_id] = work
        self._forget_oldest()
        work.start()
        return work

    def _refuse_busy(self, device: Path, transfer_id: str) -> None:
        for work in self._works.values():
            if work.ended:
                continue
            if transfer_id and work.transfer_id == transfer_id:
                raise _busy(f"Transfer {transfer_id}", work)
            if same_device(work.device, device):
                raise _busy(str(device), work)

    def _forget_oldest(self) -> None:
        ended = [work for work in self._works.values() if work.ended]
        for work in ended[: max(0, len(ended) - _REMEMBERED)]:
            del self._works[work.id]
            del self._by_request[work.request.request_id]

    def get(self, job_id: str) -> Work:
        """The job of that id. Raises NotFoundError/JOB_NOT_FOUND."""
        with self._lock:
            work = self._works.get(job_id)
        if work is None:
            raise NotFoundError(
                "JOB_NOT_FOUND",
                f"This agent knows no job {job_id}; it may have been restarted since. Start it "
                "again with the same request_id.",
                job_id=job_id,
            )
        return work

    def list(self) -> list[agent_pb2.Job]:
        """All jobs, oldest first."""
        with self._lock:
            works = [*self._works.values()]
        return [work.snapshot() for work in works]

    def watch(
        self, job_id: str, interval_seconds: float, is_wanted: Callable[[], bool]
    ) -> Iterator[agent_pb2.Job]:
        """The job now and whenever it changed, until it ended or nobody listens.

        Args:
            job_id: Job.id.
            interval_seconds: At most one snapshot in this time.
            is_wanted: Asked between two snapshots.
        """
        work = self.get(job_id)
        interval = max(interval_seconds, _SHORTEST_WATCH_SECONDS)
        last = None
        while is_wanted():
            ended = work.ended
            job = work.snapshot()
            if job != last:
                last = job
                yield job
            if ended:
                return
            work.wait(interval)

    def receiver(self, transfer_id: str) -> ReceiveFlow:
        """The receive job of a transfer, running or the last that ended.

        Raises:
            NotFoundError: TRANSFER_NOT_FOUND.
        """
        with self._lock:
            works = [work for work in self._works.values() if work.transfer_id == transfer_id]
        for work in reversed(works):
            if isinstance(work.flow, ReceiveFlow):
                return work.flow
        raise NotFoundError(
            "TRANSFER_NOT_FOUND",
            f"No receive job of transfer {transfer_id} runs here; the controller starts it.",
            transfer_id=transfer_id,
        )

    def sender(self, transfer_id: str) -> CopyFlow:
        """The running copy job of a transfer.

        Raises:
            NotFoundError: TRANSFER_NOT_FOUND.
        """
        work = self._running(transfer_id)
        if work is None or not isinstance(work.flow, CopyFlow):
            raise NotFoundError(
                "TRANSFER_NOT_FOUND",
                f"No copy job of transfer {transfer_id} runs here; the controller starts it.",
                transfer_id=transfer_id,
            )
        return work.flow

    def read_manifest(self, transfer_id: str, first_chunk: int) -> Iterator[tuple[int, bytes]]:
        """Runs of digests of a transfer, from its job or from its file.

        Raises:
            NotFoundError: TRANSFER_NOT_FOUND.
            UsageError: OUT_OF_RANGE.
        """
        if first_chunk < 0:
            raise UsageError("OUT_OF_RANGE", f"There is no chunk {first_chunk}.")
        work = self._running(transfer_id)
        if work is not None and work.knows_transfer:
            return work.manifest_runs(first_chunk)
        return self._workshop.files.read(transfer_id, first_chunk)

    def write_manifest(self, transfer_id: str, runs: Iterable[tuple[int, bytes]]) -> int:
        """Take the manifest of an earlier agent; returns how many chunks it has.

        Raises:
            BusyError: BUSY, the transfer is running.
            UsageError: MANIFEST_GAP, DIGESTS_INVALID.
        """
        work = self._running(transfer_id)
        if work is not None:
            raise _busy(f"Transfer {transfer_id}", work)
        return self._workshop.files.write(transfer_id, runs)

    def _running(self, transfer_id: str) -> Work | None:
        with self._lock:
            for work in self._works.values():
                if work.transfer_id == transfer_id and not work.ended:
                    return work
        return None

    @property
    def busy(self) -> bool:
        """Whether a job is at work."""
        with self._lock:
            return any(not work.ended for work in self._works.values())

    @property
    def held(self) -> bool:
        """Whether all that is at work is paused: only a controller can let it go on."""
        with self._lock:
            works = [work for work in self._works.values() if not work.ended]
        return bool(works) and all(work.paused for work in works)

    def vacate(self, timeout_seconds: float) -> None:
        """Cancel all jobs, and forget them and whatever is kept of any transfer.

        Raises:
            BusyError: BUSY, one did not end in time; nothing is forgotten.
        """
        reason = CancelledError("CANCELLED", "Another migration is to have this agent.")
        with self._lock:
            for work in self._works.values():
                work.cancel(reason)
            for work in self._works.values():
                if not work.wait(timeout_seconds):
                    raise _busy("This agent", work)
            self._works.clear()
            self._by_request.clear()
            self._workshop.files.clear()

    def stop_all(self, reason: CancelledError, timeout_seconds: float) -> None:
        """Take no more jobs and stop all in order; returns when they ended."""
        with self._lock:
            self._stopping = True
            works = [work for work in self._works.values() if not work.ended]
        for work in works:
            work.cancel(reason)
        for work in works:
            if not work.wait(timeout_seconds):
                _log.error("job %s does not stop", work.id)


def _busy(what: str, work: Work) -> BusyError:
    return BusyError(
        "BUSY",
        f"{what} is in use by job {work.id}; wait for it or cancel it.",
        job_id=work.id,
        request_id=work.request.request_id,
    )
