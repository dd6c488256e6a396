"""`python -m tests.bench.scale`: does the cost grow with the data, and only with it?

Copies 1, 4, 16 … GiB of random data; of what would not fit into memory less, in stripes of
64 MiB. Prints seconds a GiB of data beyond what a copy of 1 MiB takes right before it, and
what an agent held. The sizes take turns, for a machine's pace changes within minutes.
The destination holds other data in the same places, as a volume does that was used: on a
virtual machine a file that grows for long would measure how fast the host lends memory.
Exits 1 when the seconds a GiB differ by more than WITHIN.
"""

import argparse
import itertools
import random
import statistics
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

from tests.bench.commands import run
from tests.bench.datasets import GIB, MIB, Dataset, fill_stripes, scaled
from tests.bench.ways import blockferry_command, compile_ours

WITHIN = 0.10


@dataclass
class Size:
    """What is copied of one size, and all that was measured of it; seconds are of one round.

    Attributes:
        every: Of so many stripes one is data.
        beyond: By how many seconds it took longer than the copy of 1 MiB before it.
        held_bytes: The most that an agent held.
    """

    data: Dataset
    every: int
    starts: list[float] = field(default_factory=list)
    beyond: list[float] = field(default_factory=list)
    held_bytes: int = 0

    @property
    def data_gib(self) -> float:
        """Of its GiB those that are data."""
        return self.data.size_bytes / GIB / self.every

    @property
    def each(self) -> float:
        """Median seconds a GiB of data."""
        return statistics.median(self.beyond) / self.data_gib

    def __str__(self) -> str:
        """As a line of the table."""
        return (
            f"{self.data.size_bytes // GIB:6}{self.data_gib:9.2f}"
            f"{statistics.median(self.starts):9.2f}{statistics.median(self.beyond):10.2f}"
            f"{self.each:8.3f}{self.held_bytes / MIB:11.0f}"
        )


def main() -> int:
    """Measure and print a line a size."""
    options = _options()
    compile_ours()
    with tempfile.TemporaryDirectory(prefix="blockferry-bench-", dir=options.directory) as name:
        directory = Path(name)
        small = Size(scaled(directory, MIB), 1)
        sizes = []
        for gib in options.gib:
            every = -(-gib // options.most_gib)
            sizes.append(Size(scaled(directory, gib * GIB, every), every))
        turn = random.Random(0)
        for _ in range(options.rounds):
            for size in turn.sample(sizes, len(sizes)):
                size.starts.append(_seconds(directory, small, options.verify))
                seconds = _seconds(directory, size, options.verify)
                size.beyond.append(seconds - size.starts[-1])
    print(f"{'GiB':>6}{'of data':>9}{'start s':>9}{'beyond s':>10}{'s/GiB':>8}{'agent MiB':>11}")
    print("\n".join(map(str, sizes)))
    each = [size.each for size in sizes]
    middle = (max(each) + min(each)) / 2
    spread = (max(each) - middle) / middle
    print(f"seconds a GiB within {spread:.1%} of their middle, {WITHIN:.0%} asked")
    return int(spread > WITHIN)


def _seconds(directory: Path, size: Size, verify: str) -> float:
    """Of one whole `blockferry copy`."""
    destination = directory / "destination.img"
    fill_stripes(destination, size.data.size_bytes, size.every, itertools.repeat(b"\xaa" * MIB))
    done = run(blockferry_command(directory, size.data, destination, "--verify", verify))
    size.held_bytes = max(size.held_bytes, *done.document["peak_resident_bytes"].values())
    destination.unlink()
    return done.seconds


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.scale")
    parser.add_argument("--gib", type=int, nargs="+", default=[1, 4, 16, 64])
    parser.add_argument("--most-gib", type=int, default=4, help="of data")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--verify", default="wire")
    parser.add_argument("--directory", type=Path, default=Path("/dev/shm"))
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
