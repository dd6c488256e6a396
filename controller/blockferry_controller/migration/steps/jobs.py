"""What several steps say to agents about jobs and devices."""

from typing import Any

from blockferry.errors import BlockferryError, CancelledError, InternalError
from blockferry.v1 import agent_pb2
from blockferry_controller.agents.port import Agent
from blockferry_controller.clouds.port import Volume

FINAL = (
    agent_pb2.JOB_STATE_SUCCEEDED,
    agent_pb2.JOB_STATE_FAILED,
    agent_pb2.JOB_STATE_CANCELLED,
)


def device_of(volume: Volume) -> agent_pb2.DeviceSelector:
    """How an agent finds the volume on its instance."""
    if volume.path:
        return agent_pb2.DeviceSelector(path=volume.path)
    return agent_pb2.DeviceSelector(volume_id=volume.id)


def outcome(job: agent_pb2.Job) -> BlockferryError | None:
    """The error that an ended job stands for; None when it succeeded or still runs."""
    if job.state == agent_pb2.JOB_STATE_FAILED:
        from blockferry.wire import from_proto  # noqa: PLC0415 - it loads gRPC

        return from_proto(job.error)
    if job.state == agent_pb2.JOB_STATE_CANCELLED:
        return CancelledError("JOB_CANCELLED", f"job {job.id} was cancelled on its agent")
    return None


def effort(job: agent_pb2.Job) -> dict[str, Any]:
    """What an ended job took: `seconds`, `cpu_seconds`, `cpus` and its `stages`."""
    seconds = job.end_time.ToDatetime() - job.start_time.ToDatetime()
    return {
        "seconds": seconds.total_seconds(),
        "cpu_seconds": job.cpu.ToTimedelta().total_seconds(),
        "cpus": job.cpu_count,
        "stages": [
            {
                "name": stage.name,
                "operations": stage.operation_count,
                "size_bytes": stage.size_bytes,
                "busy_seconds": stage.busy.ToTimedelta().total_seconds(),
                "cpu_seconds": stage.cpu.ToTimedelta().total_seconds(),
                "waited_seconds": stage.waited.ToTimedelta().total_seconds(),
                "threads": stage.thread_count,
            }
            for stage in job.stages
        ],
    }


def run_job(agent: Agent, request: agent_pb2.StartJobRequest) -> agent_pb2.Job:
    """Start a job, wait for its end and return it.

    Raises:
        BlockferryError: the job's own error.
    """
    job = agent.start_job(request)
    *_, job = job, *agent.watch_job(job.id, 0.1)
    error = outcome(job)
    if error is not None:
        raise error
    if job.state != agent_pb2.JOB_STATE_SUCCEEDED:
        raise InternalError("JOB_UNFINISHED", f"the watch of job {job.id} ended before the job")
    return job
