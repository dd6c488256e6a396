"""`python -m tests.bench.links`: over links of 100 Mbit/s to 10 Gbit/s, and a long one.

Two agents, one of them in a namespace at the far end, against the pipes of the manual
procedure and nbdcopy over the same link. What is timed begins when everything runs:
booting agents is no part of it. Beside each rate stands its share of what the link
can carry of TCP's payload; held against it is what a target says. Writes links.json.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from blockferry.v1 import agent_pb2
from tests.agents import MIGRATION_ID, Pair
from tests.bench import datasets, nbd
from tests.bench.commands import run
from tests.bench.datasets import MIB, Dataset
from tests.bench.measure import touch
from tests.bench.netns import SINK_ADDRESS, SOURCE_ADDRESS, Link, link
from tests.bench.sshd import Sshd, sshd

MBIT = 1_000_000
LIMIT_SECONDS = 900.0
OUTPUT = Path(".bench")


WIRE_SHARE = 0.95
DELAYED_SHARE = 0.9
"""Of the link's payload, for what does not shrink, without and with a long way."""
SHRUNK_SHARE = 0.9
"""Of link x ratio of zstd -1, for what does."""


def main() -> int:
    """Measure and print a table a link; 1 when a target is missed."""
    options = _options()
    rows = []
    with tempfile.TemporaryDirectory(prefix="blockferry-bench-", dir=options.directory) as name:
        directory = Path(name)
        for set_name in options.sets:
            data = datasets.make(set_name, directory, options.gib)
            ratio = _zstd_ratio(data)
            for mbit in options.mbit:
                row = _over(directory, data, mbit, options) | {"zstd_ratio": round(ratio, 3)}
                row["targets"] = list(_targets(row))
                for told in row["targets"]:
                    print(told, flush=True)
                rows.append(row)
            data.path.unlink()
    OUTPUT.mkdir(exist_ok=True)
    suffix = f"-{options.delay_ms}ms" if options.delay_ms else ""
    (OUTPUT / f"links{suffix}.json").write_text(json.dumps(rows, indent=2) + "\n")
    return int(any("MISSED" in told for row in rows for told in row["targets"]))


def _zstd_ratio(data: Dataset) -> float:
    """How much smaller `zstd -1` makes what is no hole; at least 1."""
    compressed = data.path.with_suffix(".zst")
    run(f"zstd -1 -T0 -q {data.path} -o {compressed}")
    size = compressed.stat().st_size
    compressed.unlink()
    return max(1.0, data.data_bytes / size)


def _targets(row: dict[str, Any]) -> Iterator[str]:
    """What the link asks for, and whether it was reached; up to 1 Gbit/s it is the limit."""
    seconds = dict(row["seconds"])
    ours = seconds.pop(next(iter(seconds)))
    if row["mbit"] <= 1000:
        wire = DELAYED_SHARE if row["delay_ms"] else WIRE_SHARE
        shrinks = row["zstd_ratio"] > 1.1
        wanted = row["zstd_ratio"] * SHRUNK_SHARE if shrinks else wire
        share = row["data_bytes"] / ours / row["payload_bytes_per_second"]
        yield _verdict(f"{share:.1%} of the link", f"{wanted:.1%}", held=share >= wanted)
    if seconds:
        best = min(seconds, key=lambda way: seconds[way])
        ratio = seconds[best] / ours
        yield _verdict(f"{ratio:.2f} times as fast as {best}", "1", held=ratio >= 1)


def _verdict(seen: str, wanted: str, *, held: bool) -> str:
    return f"  {'held' if held else 'MISSED'}: {seen}, at least {wanted} asked"


def _over(directory: Path, data: Dataset, mbit: int, options: argparse.Namespace) -> dict[str, Any]:
    destination = directory / "destination.img"
    with link(mbit * MBIT) as made, ExitStack() as stack:
        here = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="run-", dir=directory)))
        daemon = stack.enter_context(sshd(here / "sshd", options.port, SOURCE_ADDRESS))
        delay = options.delay_ms / 1000
        ways = dict(_ways(made, daemon, here, delay, options))
        seconds: dict[str, list[float]] = {way: [] for way in ways}
        for _ in range(options.rounds):
            for way, move in ways.items():
                destination.unlink(missing_ok=True)
                destination.touch()
                os.truncate(destination, data.size_bytes)
                touch(data.data_bytes)
                seconds[way].append(move(data, destination))
        print(f"\n{data.name}, {data.data_bytes / MIB:.0f} MiB of data over {mbit} Mbit/s"
              + (f" with {options.delay_ms} ms" if delay else ""))  # fmt: skip
        for way, runs in seconds.items():
            median = statistics.median(runs)
            share = data.data_bytes / median / made.payload_bytes_per_second
            print(f"{way:30}{median:9.2f} s {data.data_bytes / MIB / median:8.1f} MiB/s of data, "
                  f"{share:6.1%} of the link")  # fmt: skip
        sys.stdout.flush()
        return {
            "data_set": data.name,
            "data_bytes": data.data_bytes,
            "mbit": mbit,
            "delay_ms": options.delay_ms,
            "payload_bytes_per_second": made.payload_bytes_per_second,
            "seconds": {way: statistics.median(runs) for way, runs in seconds.items()},
        }


def _ways(
    made: Link, daemon: Sshd, here: Path, delay: float, options: argparse.Namespace
) -> Iterator[tuple[str, Callable[[Dataset, Path], float]]]:
    for mode in options.compression:
        yield f"blockferry, {mode}", _agents(made, here, delay, mode)
    if options.ours or delay:
        return
    for name, there, back in (
        ("dd | gzip -1 | ssh", "dd bs=4M if={} status=none | gzip -1", "gunzip"),
        ("dd | zstd -1 -T0 | ssh", "dd bs=4M if={} status=none | zstd -1 -T0", "zstd -d"),
        ("dd | ssh", "dd bs=4M if={} status=none", "cat"),
    ):
        yield name, _pipe(made, daemon, there, back)
    certificates = nbd.certificates(here / "certificates", SINK_ADDRESS)
    yield "nbdcopy, TLS", _nbdcopy(made, certificates, options.port + 1)


def _agents(made: Link, here: Path, delay: float, mode: str) -> Callable[[Dataset, Path], float]:
    def move(data: Dataset, destination: Path) -> float:
        with tempfile.TemporaryDirectory(prefix="pair-", dir=here) as name:
            pair = Pair(Path(name, "agents"))
            pair.source.host = SOURCE_ADDRESS
            pair.sink.host, pair.sink.within = SINK_ADDRESS, made.within
            with pair, _far(made, pair.sink.port, delay) as address:
                start = time.perf_counter()
                receive = pair.receive(destination, data.size_bytes, verify=agent_pb2.VERIFY_WIRE)
                spec = agent_pb2.CopySpec(
                    transfer_id=MIGRATION_ID,
                    device=agent_pb2.DeviceSelector(path=str(data.path)),
                    size_bytes=data.size_bytes,
                    sink_addresses=[address],
                    compression=_compression(mode),
                )
                request = agent_pb2.StartJobRequest(request_id="copy-1", copy=spec)
                copy = pair.source.start_job(request)
                for agent, job in ((pair.source, copy), (pair.sink, receive)):
                    done = agent.finish(job.id, timeout=LIMIT_SECONDS)
                    if done.state != agent_pb2.JOB_STATE_SUCCEEDED:
                        raise RuntimeError(f"the {agent.role.value}'s job ended badly: {done}")
                return time.perf_counter() - start

    return move


@contextmanager
def _far(made: Link, port: int, delay: float) -> Iterator[str]:
    """The sink's address; that of a proxy that delays, when asked for."""
    if not delay:
        yield f"{SINK_ADDRESS}:{port}"
        return
    far = port + 1 if port < 65535 else port - 1
    proxy = subprocess.Popen(
        [*made.within, sys.executable, "-m", "tests.bench.delay",
         SINK_ADDRESS, str(far), SINK_ADDRESS, str(port), str(delay)],
    )  # fmt: skip
    try:
        time.sleep(1)
        yield f"{SINK_ADDRESS}:{far}"
    finally:
        proxy.terminate()
        proxy.wait(10)


def _compression(mode: str) -> agent_pb2.Compression:
    kind, _, level = mode.partition(":")
    modes = {
        "auto": agent_pb2.Compression.MODE_AUTO,
        "none": agent_pb2.Compression.MODE_NONE,
        "zstd": agent_pb2.Compression.MODE_ZSTD,
    }
    return agent_pb2.Compression(mode=modes[kind], level=int(level or 0))


def _pipe(made: Link, daemon: Sshd, there: str, back: str) -> Callable[[Dataset, Path], float]:
    def move(data: Dataset, destination: Path) -> float:
        far = " ".join(made.within)
        return run(
            f'{far} {daemon.client} "{there.format(data.path)}" | {back} '
            f"| dd bs=4M of={destination} conv=notrunc,fsync status=none"
        ).seconds

    return move


def _nbdcopy(made: Link, certificates: Path, port: int) -> Callable[[Dataset, Path], float]:
    def move(data: Dataset, destination: Path) -> float:
        with nbd.export(destination, certificates, SINK_ADDRESS, port, made.within) as served:
            return run(f"nbdcopy --flush {data.path} '{served.uri}'").seconds

    return move


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.links")
    parser.add_argument("--sets", nargs="+", default=["os", "random"], choices=datasets.NAMES)
    parser.add_argument("--mbit", type=int, nargs="+", default=[100, 1000, 10_000])
    parser.add_argument("--gib", type=float, default=0.5, help="of data")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--delay-ms", type=int, default=0, help="round trip, by a proxy")
    parser.add_argument("--compression", nargs="+", default=["auto"])
    parser.add_argument("--ours", action="store_true", help="leave the other ways out")
    parser.add_argument("--directory", type=Path, default=Path("/dev/shm"))
    parser.add_argument("--port", type=int, default=22932)
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
