"""`python -m tests.bench.scale`: does the cost grow with the data, and only with it?

Copies 1, 4, 16 … GiB, one stripe of 64 MiB in `--every` of it random data, of large ones
less, so that both ends fit into memory, and prints seconds a GiB of data beyond what the
smallest copy takes to start, and what an agent held.
The destination holds other data in the same places, as a volume does that was used: on a
virtual machine a file that grows for long would measure how fast the host lends memory.
Exits 1 when the seconds a GiB differ by more than WITHIN.
"""

import argparse
import itertools
import statistics
import sys
import tempfile
from pathlib import Path

from tests.bench.commands import run
from tests.bench.datasets import GIB, MIB, fill_stripes, scaled
from tests.bench.ways import blockferry_command

WITHIN = 0.10


def main() -> int:
    """Measure and print a line a size."""
    options = _options()
    with tempfile.TemporaryDirectory(prefix="blockferry-bench-", dir=options.directory) as name:
        directory = Path(name)
        start = _median(directory, MIB, 1, options)
        each: list[float] = []
        print(f"start-up, 1 MiB: {start:.2f} s")
        print(f"{'GiB':>6}{'of data':>9}{'median s':>10}{'s/GiB of data':>15}{'agent MiB':>11}")
        for gib in options.gib:
            every = max(options.every, -(-gib // options.most_gib))
            seconds = _median(directory, gib * GIB, every, options)
            data_gib = gib / every
            each.append((seconds - start) / data_gib)
            held = max(_held) / MIB
            print(f"{gib:6}{data_gib:9.2f}{seconds:10.2f}{each[-1]:15.3f}{held:11.0f}", flush=True)
    middle = (max(each) + min(each)) / 2
    spread = (max(each) - middle) / middle
    print(f"seconds a GiB within {spread:.1%} of their middle, {WITHIN:.0%} asked")
    return int(spread > WITHIN)


_held: list[int] = []


def _median(directory: Path, size_bytes: int, every: int, options: argparse.Namespace) -> float:
    data = scaled(directory, size_bytes, every)
    destination = directory / "destination.img"
    seconds = []
    _held.clear()
    for _ in range(options.rounds):
        fill_stripes(destination, size_bytes, every, itertools.repeat(b"\xaa" * MIB))
        done = run(blockferry_command(directory, data, destination, "--verify", options.verify))
        seconds.append(done.seconds)
        _held.extend(done.document["peak_resident_bytes"].values())
    destination.unlink()
    data.path.unlink()
    return statistics.median(seconds)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.scale")
    parser.add_argument("--gib", type=int, nargs="+", default=[1, 4, 16, 64])
    parser.add_argument("--every", type=int, default=2, help="of so many stripes one is data")
    parser.add_argument("--most-gib", type=int, default=8, help="of data")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--verify", default="wire")
    parser.add_argument("--directory", type=Path, default=Path("/dev/shm"))
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
