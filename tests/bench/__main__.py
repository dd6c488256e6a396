"""`make bench`: blockferry copy beside the manual procedure, same data, same run.

Runs are interleaved, so that a machine that slows down slows all of them;
medians are shown, and ratios of medians are the result.
"""

import argparse
import filecmp
import json
import os
import platform
import statistics
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from tests.bench import peers
from tests.bench.datasets import half_full

GIB = 1 << 30
MIB = 1 << 20
TARGET_RATIO = 4.0
TARGET_RESIDENT_BYTES = 256 * MIB


def main() -> int:
    """Measure, print the table, and say whether the targets hold."""
    options = _options()
    with tempfile.TemporaryDirectory(prefix="blockferry-bench-", dir=options.directory) as name:
        directory = Path(name)
        source = directory / "source.img"
        half_full(source, options.gib * GIB)
        try:
            return _compare(directory, source, options.runs, options.port)
        except peers.MissingPeerError as missing:
            print(missing, file=sys.stderr)
            return 12


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="make bench")
    shared = Path("/dev/shm")
    memory = shared if shared.is_dir() else Path(tempfile.gettempdir())
    parser.add_argument("--directory", type=Path, default=memory, help="where the images go")
    parser.add_argument("--gib", type=int, default=3)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--port", type=int, default=22922)
    return parser.parse_args()


def _compare(directory: Path, source: Path, runs: int, port: int) -> int:
    destination = directory / "destination.img"
    resident: list[int] = []

    def ferry(verify: str) -> Callable[[], float]:
        def run() -> float:
            state = directory / "state" / "state.db"
            command = peers.blockferry_copy(state, source, destination, verify)
            seconds, printed = peers.timed(command)
            resident.extend(json.loads(printed)["peak_resident_bytes"].values())
            return seconds

        return run

    with peers.sshd(directory / "sshd", port) as daemon:
        ways: dict[str, Callable[[], float]] = {
            "blockferry copy, readback": ferry("readback"),
            "blockferry copy, wire": ferry("wire"),
            "dd | gzip -1 | ssh": lambda: peers.timed(
                peers.manual_gzip(daemon, source, destination)
            )[0],
            "dd | ssh": lambda: peers.timed(peers.manual_raw(daemon, source, destination))[0],
        }
        seconds: dict[str, list[float]] = {way: [] for way in ways}
        for _ in range(runs):
            for way, run in ways.items():
                destination.unlink(missing_ok=True)
                seconds[way].append(run())
                if not filecmp.cmp(source, destination, shallow=False):
                    raise RuntimeError(f"{way}: source and destination differ")
    return _report(seconds, source.stat().st_size, max(resident))


def _report(seconds: dict[str, list[float]], size_bytes: int, resident_bytes: int) -> int:
    base = statistics.median(seconds["dd | gzip -1 | ssh"])
    print(f"{size_bytes / GIB:g} GiB, half full; {os.cpu_count()} CPUs, {platform.machine()}")
    print(f"{'':28} {'median s':>9} {'min':>7} {'max':>7} {'MiB/s':>7} {'x gzip':>7}")
    for way, runs in seconds.items():
        median = statistics.median(runs)
        rate = size_bytes / MIB / median
        print(
            f"{way:28} {median:9.2f} {min(runs):7.2f} {max(runs):7.2f} {rate:7.0f} "
            f"{base / median:6.1f}x"
        )
    ratio = base / statistics.median(seconds["blockferry copy, readback"])
    print(f"peak resident memory of an agent: {resident_bytes / MIB:.0f} MiB")
    held = ratio >= TARGET_RATIO and resident_bytes <= TARGET_RESIDENT_BYTES
    print(f"targets (>= {TARGET_RATIO:g}x, <= 256 MiB): {'held' if held else 'MISSED'}")
    return 0 if held else 1


if __name__ == "__main__":
    sys.exit(main())
