"""What a run tells of the source's jobs together."""

import pytest

from blockferry.v1.agent_pb2 import JobProgress
from blockferry_controller.migration.steps.pair import _merge

SIZE = 100


def job(resumed_from: int, sent: int) -> JobProgress:
    return JobProgress(size_bytes=SIZE, resumed_from_bytes=resumed_from, sent_bytes=sent)


@pytest.mark.parametrize(
    ("jobs", "resumed_from"),
    [
        ([job(0, 60)], 0),
        ([job(40, 60)], 40),
        ([job(40, 10), job(50, 50)], 40),
        ([job(0, 50), job(50, 50)], 0),
        ([job(0, 0), job(40, 60)], 40),
        ([job(0, 0)], 0),
    ],
    ids=[
        "fresh", "resumed", "taken up twice", "fresh, then taken up",
        "the first agent died before it told anything", "nothing told",
    ],
)  # fmt: skip
def test_it_went_on_from_where_its_first_job_did(
    jobs: list[JobProgress], resumed_from: int
) -> None:
    progress = _merge(jobs, JobProgress(size_bytes=SIZE, committed_bytes=SIZE), "copy")
    assert progress.resumed_from_bytes == resumed_from
    assert progress.sent_bytes == sum(one.sent_bytes for one in jobs)
