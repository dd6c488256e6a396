"""Where the time of a job went, stage by stage."""

import threading

from blockferry.limits import MIB


class Stage:
    """Counts of one stage. Thread-safe."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._lock = threading.Lock()
        self._ops = 0
        self._bytes = 0
        self._busy_seconds = 0.0
        self._waiting_seconds = 0.0

    def add(self, size_bytes: int, busy_seconds: float) -> None:
        """Count one operation on `size_bytes` that took `busy_seconds`."""
        with self._lock:
            self._ops += 1
            self._bytes += size_bytes
            self._busy_seconds += busy_seconds

    def waited(self, seconds: float) -> None:
        """Count time in which the stage had nothing to do or was held."""
        with self._lock:
            self._waiting_seconds += seconds

    def line(self) -> str:
        """For people: `read 512 ops 512.0 MiB 0.41 s 1248.8 MiB/s waited 0.10 s`."""
        with self._lock:
            size = self._bytes / MIB
            speed = size / self._busy_seconds if self._busy_seconds else 0.0
            return (
                f"{self.name} {self._ops} ops {size:.1f} MiB {self._busy_seconds:.2f} s "
                f"{speed:.1f} MiB/s waited {self._waiting_seconds:.2f} s"
            )


class StageClock:
    """The stages of one job, in the order in which data passes them."""

    def __init__(self, *names: str) -> None:
        self._stages = {name: Stage(name) for name in names}

    def __getitem__(self, name: str) -> Stage:
        return self._stages[name]

    def summary(self) -> str:
        """One line over all stages."""
        return "; ".join(stage.line() for stage in self._stages.values())
