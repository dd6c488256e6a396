"""`python -m tests.sim --dir DIR --name east`: one embedded cloud until a signal ends it."""

import argparse
import signal
import sys
import threading
from pathlib import Path

from tests.sim.cloud import EmbeddedCloud
from tests.sim.stock import QUOTAS


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.sim", description=__doc__)
    parser.add_argument("--dir", type=Path, required=True, help="for clouds.yaml and volumes")
    parser.add_argument("--name", default="east", help="the cloud's name in clouds.yaml")
    parser.add_argument("--address", help="loopback address of its APIs; default: a free one")
    parser.add_argument(
        "--quota", action="append", default=[], metavar="KEY=N", help=f"of {', '.join(QUOTAS)}"
    )
    parser.add_argument("--thick", action="store_true", help="new volumes hold garbage")
    parser.add_argument(
        "--prepared", metavar="VERSION", help="add an image that holds the agent of this version"
    )
    parser.add_argument(
        "--until-stdin-ends", action="store_true", help="end when standard input does, too"
    )
    return parser.parse_args()


def _watch_stdin(end: threading.Event) -> None:
    while sys.stdin.buffer.read(4096):
        pass
    end.set()


def main() -> int:
    """Run until SIGTERM or SIGINT."""
    arguments = _arguments()
    quotas = {key: int(value) for key, value in (one.split("=") for one in arguments.quota)}
    end = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: end.set())
    with EmbeddedCloud(
        arguments.name,
        arguments.dir,
        address=arguments.address,
        quotas=quotas,
        thick=arguments.thick,
        prepared_version=arguments.prepared,
    ) as cloud:
        print(f"READY {cloud.name} {cloud.keystone.url}/v3 {cloud.clouds_yaml}", flush=True)
        if arguments.until_stdin_ends:
            threading.Thread(target=_watch_stdin, args=(end,), daemon=True).start()
        end.wait()
    sys.stderr.write("".join(cloud.problems))
    return 0


if __name__ == "__main__":
    sys.exit(main())
