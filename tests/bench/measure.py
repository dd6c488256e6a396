"""Interleaved, repeated runs and what they come to.

A machine that slows down slows all ways of a round alike, so ratios of medians
hold where seconds do not; they are the result.
"""

import mmap
import os
import random
import statistics
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.bench.commands import Run
from tests.bench.datasets import GIB, MIB, Dataset
from tests.bench.ways import Way

OURS_A_ROUND = 3


@dataclass
class Figures:
    """All runs of one way over one data set."""

    way: str
    ours: bool
    runs: list[Run] = field(default_factory=list)

    @property
    def median_seconds(self) -> float:
        """Of the time from the command's start to its end."""
        return statistics.median(run.seconds for run in self.runs)

    @property
    def median_cpu_seconds(self) -> float:
        """Of the command and its children."""
        return statistics.median(run.cpu_seconds for run in self.runs)

    @property
    def resident_bytes(self) -> int:
        """The most that one agent held in any run; 0 for peers."""
        peaks = [run.document.get("peak_resident_bytes", {}).values() for run in self.runs]
        return max((int(peak) for one in peaks for peak in one), default=0)

    def document(self) -> dict[str, Any]:
        """For the JSON result."""
        seconds = [run.seconds for run in self.runs]
        return {
            "way": self.way,
            "median_seconds": round(self.median_seconds, 3),
            "min_seconds": round(min(seconds), 3),
            "max_seconds": round(max(seconds), 3),
            "cpu_seconds": round(self.median_cpu_seconds, 3) if self.ours else None,
            "peak_resident_bytes": self.resident_bytes or None,
        }


def compare(
    data: Dataset, ways: Sequence[Way], destination: Path, rounds: int, *, garbage: bool = False
) -> list[Figures]:
    """Move `data` each way in turn, `rounds` times; every result is compared.

    The turn is another in each round: what a way leaves behind on the machine, memory that
    was just freed above all, is not always met by the same one. Ours take OURS_A_ROUND turns
    in each: every ratio has one of them below its line, and two that differ by a fifth of
    two seconds are told apart by many runs only.

    Args:
        garbage: Whether the destination is full of something else before each run;
            else it is a fresh file of holes, as a new volume is.

    Raises:
        RuntimeError: a way failed, or its destination differs from the source.
    """
    figures = [Figures(way.name, way.ours) for way in ways]
    turn = random.Random(0)
    for _ in range(rounds):
        pairs = [
            pair
            for pair in zip(ways, figures, strict=True)
            for _ in range(OURS_A_ROUND if pair[0].ours else 1)
        ]
        for way, into in turn.sample(pairs, len(pairs)):
            _prepare(destination, data.size_bytes, garbage=garbage)
            touch(data.data_bytes)
            into.runs.append(way.move(data, destination))
            if subprocess.run(["cmp", data.path, destination], check=False).returncode:
                raise RuntimeError(f"{way.name}: source and destination differ")
    destination.unlink(missing_ok=True)
    return figures


def table(title: str, figures: Sequence[Figures], size_bytes: int) -> str:
    """One data set's figures for people; ratios against our first way."""
    ours = figures[0].median_seconds
    lines = [title, f"{'':34}{'median s':>9}{'min':>8}{'max':>8}{'MiB/s':>8}{'took':>8}"]
    for one in figures:
        seconds = [run.seconds for run in one.runs]
        lines.append(
            f"{one.way:34}{one.median_seconds:9.2f}{min(seconds):8.2f}{max(seconds):8.2f}"
            f"{size_bytes / MIB / one.median_seconds:8.0f}{one.median_seconds / ours:7.1f}x"
        )
    first = figures[0]
    lines.append(
        f"{first.way}: {first.median_cpu_seconds / (size_bytes / GIB):.2f} s of CPU a GiB, "
        f"an agent held {first.resident_bytes / MIB:.0f} MiB at most"
    )
    return "\n".join(lines)


def touch(size_bytes: int) -> None:
    """Have this machine's host give it memory that it lends to others while it is free.

    On a virtual machine a page that was free for some seconds may have gone back to the
    host; the first write to it then takes four times as long, whoever writes.
    """
    with mmap.mmap(-1, max(size_bytes, MIB), flags=mmap.MAP_PRIVATE | mmap.MAP_POPULATE) as memory:
        memory[0] = 0


def _prepare(destination: Path, size_bytes: int, *, garbage: bool) -> None:
    destination.unlink(missing_ok=True)
    with destination.open("wb") as file:
        if garbage:
            block = random.Random(0).randbytes(MIB)
            for _ in range(size_bytes // MIB):
                file.write(block)
        file.truncate(size_bytes)
        os.fsync(file.fileno())
