"""What holds when a job has ended: whoever waited for it may end the process at once."""

import logging
from pathlib import Path

import pytest

from blockferry.errors import CancelledError
from blockferry.v1 import agent_pb2
from blockferry_agent.assignments import Prepared
from blockferry_agent.work import Work


class Cancelled:
    """A flow that is cancelled at once."""

    def run(self) -> None:
        raise CancelledError("CANCELLED", "it was")

    def cancel(self, reason: CancelledError) -> None:
        del reason

    def report(self, job: agent_pb2.Job) -> None:
        del job


class Ear(logging.Handler):
    """Hears what is told, and whether the job has ended by then."""

    def __init__(self, work: Work) -> None:
        super().__init__()
        self._work = work
        self.heard: list[tuple[str, bool]] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.heard.append((record.getMessage(), self._work.ended))


def test_it_is_told_before_anybody_knows_that_it_has_ended(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, "blockferry_agent.work")
    released: list[bool] = []
    work = Work(
        agent_pb2.StartJobRequest(request_id="r-1"),
        Path("/dev/null"),
        "m-1",
        Prepared(Cancelled(), None, lambda: released.append(work.ended)),
    )
    ear = Ear(work)
    log = logging.getLogger("blockferry_agent.work")
    log.addHandler(ear)
    try:
        work.start()
        assert work.wait(10)
    finally:
        log.removeHandler(ear)

    ((told, ended_by_then),) = ear.heard
    assert "JOB_STATE_CANCELLED" in told
    assert not ended_by_then
    assert released == [False]
