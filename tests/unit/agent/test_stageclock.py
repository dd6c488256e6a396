import threading
import time

from blockferry.limits import MIB
from blockferry.v1 import agent_pb2
from blockferry_agent.stageclock import Lap, StageClock, Stopwatch, summary


def test_a_job_is_told_where_the_time_went() -> None:
    clock, job = StageClock("read", "send"), agent_pb2.Job()
    clock["read"].add(3 * MIB, Lap(0.5, 0.25))
    other = threading.Thread(target=clock["read"].add, args=(MIB, Lap(1.5, 1.0)))
    other.start()
    other.join()
    clock["send"].waited(0.25)

    clock.report(job)
    clock.report(job)

    read, send = job.stages
    assert (read.name, read.operation_count, read.size_bytes) == ("read", 2, 4 * MIB)
    assert (read.busy.ToMilliseconds(), read.waited.ToMilliseconds()) == (2000, 0)
    assert (read.cpu.ToMilliseconds(), send.cpu.ToMilliseconds()) == (1250, 0)
    assert (read.thread_count, send.thread_count) == (2, 0)
    assert (send.operation_count, send.waited.ToMilliseconds()) == (0, 250)
    assert summary(job.stages) == (
        "read 2 ops 4.0 MiB 2.00 s 2.0 MiB/s waited 0.00 s; "
        "send 0 ops 0.0 MiB 0.00 s 0.0 MiB/s waited 0.25 s"
    )


def test_laps_tell_waiting_from_work() -> None:
    watch = Stopwatch()
    time.sleep(0.05)
    waited = watch.lap()
    sum(range(300_000))
    worked = watch.lap()

    assert waited.seconds >= 0.05 > waited.cpu_seconds
    assert 0 < worked.cpu_seconds <= worked.seconds * 1.01
