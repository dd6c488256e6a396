"""Where the time of a job went, stage by stage."""

import threading
import time
from collections.abc import Iterable
from datetime import timedelta
from typing import NamedTuple

from blockferry.limits import MIB
from blockferry.v1 import agent_pb2


class Lap(NamedTuple):
    """What one operation took.

    Attributes:
        seconds: By the clock.
        cpu_seconds: Of them, this thread's on a processor.
    """

    seconds: float
    cpu_seconds: float = 0.0


class Stopwatch:
    """Measures the operations of one thread, one after another."""

    def __init__(self) -> None:
        self._at, self._cpu_at = time.perf_counter(), time.thread_time()

    def lap(self) -> Lap:
        """What passed since the last lap, or since the beginning."""
        before, cpu_before = self._at, self._cpu_at
        self._at, self._cpu_at = time.perf_counter(), time.thread_time()
        return Lap(self._at - before, self._cpu_at - cpu_before)


class Stage:
    """Counts of one stage. Thread-safe."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._lock = threading.Lock()
        self._ops = 0
        self._bytes = 0
        self._busy_seconds = 0.0
        self._cpu_seconds = 0.0
        self._waited_seconds = 0.0
        self._threads: set[int] = set()

    def add(self, size_bytes: int, took: Lap) -> None:
        """Count one operation of this thread on `size_bytes`."""
        with self._lock:
            self._ops += 1
            self._bytes += size_bytes
            self._busy_seconds += took.seconds
            self._cpu_seconds += took.cpu_seconds
            self._threads.add(threading.get_ident())

    def waited(self, seconds: float) -> None:
        """Count time in which the stage had nothing to do or was held."""
        with self._lock:
            self._waited_seconds += seconds

    def snapshot(self) -> agent_pb2.Stage:
        """What was counted so far."""
        with self._lock:
            stage = agent_pb2.Stage(
                name=self.name,
                operation_count=self._ops,
                size_bytes=self._bytes,
                thread_count=len(self._threads),
            )
            stage.busy.FromTimedelta(timedelta(seconds=self._busy_seconds))
            stage.cpu.FromTimedelta(timedelta(seconds=self._cpu_seconds))
            stage.waited.FromTimedelta(timedelta(seconds=self._waited_seconds))
            return stage


class StageClock:
    """The stages of one job, in the order in which data passes them."""

    def __init__(self, *names: str) -> None:
        self._stages = {name: Stage(name) for name in names}

    def __getitem__(self, name: str) -> Stage:
        return self._stages[name]

    def report(self, job: agent_pb2.Job) -> None:
        """Replace the job's stages by what was counted so far."""
        del job.stages[:]
        job.stages.extend(stage.snapshot() for stage in self._stages.values())


def summary(stages: Iterable[agent_pb2.Stage]) -> str:
    """One line over all stages, for the log."""
    return "; ".join(map(_line, stages))


def _line(stage: agent_pb2.Stage) -> str:
    """As `read 512 ops 512.0 MiB 0.41 s 1248.8 MiB/s waited 0.10 s`."""
    size, busy = stage.size_bytes / MIB, stage.busy.ToTimedelta().total_seconds()
    speed = size / busy if busy else 0.0
    return (
        f"{stage.name} {stage.operation_count} ops {size:.1f} MiB {busy:.2f} s "
        f"{speed:.1f} MiB/s waited {stage.waited.ToTimedelta().total_seconds():.2f} s"
    )
