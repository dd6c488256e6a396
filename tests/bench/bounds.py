"""`python -m tests.bench.bounds`: what an agent holds, and what a GiB costs it, stage by stage.

Every data set over 1, 4 and 8 channels, with `blockferry copy --profile`. Exits 1 when an
agent with the channels that it chooses itself held more than RESIDENT_BYTES.
"""

import argparse
import json
import statistics
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.bench import datasets
from tests.bench.commands import Run, run
from tests.bench.datasets import GIB, MIB, Dataset
from tests.bench.measure import touch
from tests.bench.targets import RESIDENT_BYTES
from tests.bench.ways import blockferry_command

OUTPUT = Path(".bench")


def main() -> int:
    """Measure and print; write `bounds.json`."""
    options = _options()
    rows = []
    with tempfile.TemporaryDirectory(prefix="blockferry-bench-", dir=options.directory) as name:
        directory = Path(name)
        for set_name in options.sets:
            data = datasets.make(set_name, directory, options.gib)
            for channels in (0, *options.channels):
                row = _row(directory, data, channels, options.rounds)
                print("\n".join(_lines(row)), flush=True)
                rows.append(row)
            data.path.unlink()
    OUTPUT.mkdir(exist_ok=True)
    (OUTPUT / "bounds.json").write_text(json.dumps(rows, indent=2) + "\n")
    most = max(max(row["resident_bytes"].values()) for row in rows if row["channels"] == 0)
    print(f"an agent held {most / MIB:.0f} MiB at most, of {RESIDENT_BYTES / MIB:.0f}")
    return 0 if most <= RESIDENT_BYTES else 1


def _row(directory: Path, data: Dataset, channels: int, rounds: int) -> dict[str, Any]:
    runs = [_copied(directory, data, channels) for _ in range(rounds)]
    profiles = [one.document["profile"] for one in runs]
    return {
        "data_set": data.name,
        "data_bytes": data.data_bytes,
        "channels": channels,
        "seconds": statistics.median(one.seconds for one in runs),
        "bottleneck": profiles[0]["bottleneck"],
        "resident_bytes": {
            side: max(one.document["peak_resident_bytes"][side] for one in runs)
            for side in ("source", "destination")
        },
        "cpu_seconds": {
            side: statistics.median(one[side]["cpu_seconds"] for one in profiles)
            for side in ("source", "sink")
        },
        "stages": {
            f"{side} {stage['name']}": stage["cpu_seconds"]
            for side in ("source", "sink")
            for stage in profiles[-1][side]["stages"]
        },
    }


def _copied(directory: Path, data: Dataset, channels: int) -> Run:
    destination = directory / "destination.img"
    destination.unlink(missing_ok=True)
    touch(data.data_bytes)
    chosen = ("--channels", str(channels)) if channels else ()
    try:
        return run(blockferry_command(directory, data, destination, "--profile", *chosen))
    finally:
        destination.unlink(missing_ok=True)


def _lines(row: dict[str, Any]) -> Iterator[str]:
    held, spent, gib = row["resident_bytes"], row["cpu_seconds"], row["data_bytes"] / GIB
    channels = row["channels"] or "their own"
    yield (
        f"{row['data_set']:8}{channels!s:>10} channels {row['seconds']:6.2f} s, held "
        f"{held['source'] / MIB:4.0f} + {held['destination'] / MIB:4.0f} MiB, CPU s a GiB of data: "
        f"source {spent['source'] / max(gib, 1e-9):.2f}, sink {spent['sink'] / max(gib, 1e-9):.2f}"
    )
    if not row["channels"]:
        stages = {name: cpu for name, cpu in row["stages"].items() if cpu >= 0.005}
        told = ", ".join(f"{name} {cpu / max(gib, 1e-9):.2f}" for name, cpu in stages.items())
        yield f"        of it: {told}; the rest is gRPC and TLS; bottleneck: {row['bottleneck']}"


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.bounds")
    parser.add_argument("--sets", nargs="+", default=list(datasets.NAMES), choices=datasets.NAMES)
    parser.add_argument("--channels", type=int, nargs="*", default=[1, 4, 8])
    parser.add_argument("--gib", type=float, default=1, help="of data a set")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--directory", type=Path, default=Path("/dev/shm"))
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
