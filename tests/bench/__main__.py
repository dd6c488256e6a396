"""`make bench`: blockferry copy beside every other way, same data, same run.

    python -m tests.bench [--sets os,random] [--gib 1] [--rounds 3] [--storage disk]
    python -m tests.bench.links        over shaped links, in network namespaces
    python -m tests.bench.scale        does the cost grow with the data, and only with it?

Prints a table a data set, the targets, and writes result.json and result.png.
"""

import argparse
import json
import os
import platform
import shutil
import sys
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from tests.bench import datasets, nbd, plot, targets
from tests.bench.commands import MissingPeerError
from tests.bench.measure import compare, table
from tests.bench.sshd import sshd
from tests.bench.ways import Bench, Way, blockferry, compile_ours, peers

OUTPUT = Path(".bench")
_FOR_THE_REST = 2 * datasets.GIB
"""Room for what the ways themselves take, in bytes."""


def main() -> int:
    """Measure, print, and say whether the targets hold."""
    options = _options()
    compile_ours()
    OUTPUT.mkdir(exist_ok=True)
    with ExitStack() as stack:
        name = tempfile.TemporaryDirectory(prefix="blockferry-bench-", dir=options.directory)
        directory = Path(stack.enter_context(name))
        daemon = stack.enter_context(sshd(directory / "sshd", options.port))
        certificates = nbd.certificates(directory / "certificates", "127.0.0.1")
        bench = Bench(directory, daemon, options.port + 1, certificates)
        ways, missing = _ways(bench, ours_only=options.ours)
        result = _measure(options, directory, ways, {"missing": missing})
    print(targets.table(result))
    plot.draw(result, OUTPUT / "result.png")
    print(f"written: {OUTPUT}/result.json, {OUTPUT}/result.png")
    return 0 if targets.held(result) else 1


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="make bench")
    parser.add_argument("--sets", type=_names, default=list(datasets.NAMES))
    parser.add_argument("--gib", type=float, default=1, help="of data a set")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--storage", choices=("memory", "disk"), default="memory")
    parser.add_argument("--directory", type=Path, help="where the images go")
    parser.add_argument("--port", type=int, default=22922)
    parser.add_argument("--ours", action="store_true", help="leave the other ways out")
    options = parser.parse_args()
    if options.directory is None:
        options.directory = Path("/dev/shm" if options.storage == "memory" else "/var/tmp")
    return options


def _names(text: str) -> list[str]:
    names = text.split(",")
    unknown = [name for name in names if name not in datasets.NAMES]
    if unknown:
        raise argparse.ArgumentTypeError(f"{unknown[0]} is none of {', '.join(datasets.NAMES)}")
    return names


def _ways(bench: Bench, *, ours_only: bool) -> tuple[list[Way], list[str]]:
    ours = [
        blockferry(bench, ", wire", "--verify", "wire"),
        blockferry(bench, ", readback", "--verify", "readback"),
        blockferry(bench, ", none", "--verify", "none"),
    ]
    missing = []
    for maker in [] if ours_only else peers(bench):
        try:
            ours.append(maker())
        except MissingPeerError as error:
            missing.append(str(error))
            print(f"not compared: {error}")
    return ours, missing


def _measure(
    options: argparse.Namespace, directory: Path, ways: Sequence[Way], result: dict[str, Any]
) -> dict[str, Any]:
    """Measure all data sets; what is known is written after each."""
    machine = f"{os.cpu_count()} CPUs, {platform.machine()}, Linux {platform.release()}"
    print(f"{machine}; storage: {options.storage} ({options.directory})")
    rows: list[dict[str, Any]] = []
    result |= {"machine": machine, "storage": options.storage, "datasets": rows}
    for name in options.sets:
        data = datasets.make(name, directory, options.gib)
        if missing := _missing_room(
            directory, data.size_bytes, in_memory=options.storage == "memory"
        ):
            sys.exit(f"{name}: {missing}")
        for garbage in (False, True) if name == "zero" else (False,):
            figures = compare(
                data, ways, directory / "destination.img", options.rounds, garbage=garbage
            )
            label = f"{name}, onto garbage" if garbage else name
            told = f"{data.size_bytes / datasets.GIB:g} GiB, {data.data_bytes >> 20} MiB of data"
            print(f"\n{table(f'{label}: {told}', figures, data.size_bytes)}", flush=True)
            rows.append(
                {
                    "name": label,
                    "size_bytes": data.size_bytes,
                    "data_bytes": data.data_bytes,
                    "ways": [one.document() for one in figures],
                }
            )
            (OUTPUT / "result.json").write_text(json.dumps(result, indent=2) + "\n")
        data.path.unlink()
    return result


def _missing_room(directory: Path, size_bytes: int, *, in_memory: bool) -> str:
    """What is missing for a destination of which some ways write every byte; else empty."""
    free = shutil.disk_usage(directory).free
    if in_memory:
        # A file system in memory promises more than there is.
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        available = next(line for line in lines if line.startswith("MemAvailable:"))
        free = min(free, int(available.split()[1]) * 1024)
    wanted = size_bytes + _FOR_THE_REST
    if free >= wanted:
        return ""
    needed, left = (f"{size / datasets.GIB:.1f} GiB" for size in (wanted, free))
    return (
        f"{needed} are wanted in {directory.parent}, and {left} are free; "
        "remove what is there, or leave the set out with --sets"
    )


if __name__ == "__main__":
    sys.exit(main())
