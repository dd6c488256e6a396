"""`make e2e CLOUDS=embedded`: the tests for real clouds, on two embedded ones.

The tests get what anybody's clouds would give them, a clouds.yaml and a directory of
wheels, and nothing in them asks which clouds these are. Everything is in namespaces of its
own: processes, mounts (with all files, in memory), and a network where IPv6 addresses are
this machine's as 127.0.0.0/8 is. All of it ends with the process that it began with,
whatever ends that.
"""

import argparse
import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from blockferry_controller.delivery.wheel_server import WheelServer
from tests.sim import EmbeddedCloud
from tests.sim.guest import why_volumes_cannot_be_mounted
from tests.wheelhouse import ROOT, collect

TESTS: Final = ("-v", "tests/e2e", "tests/contract")
NETWORKS: Final = {"east": "fd00:ea57::/64", "west": "fd00:3e57::/64"}
HERE: Final = {4: "127.0.0.1", 6: "fd00:c0de::1"}
"""Where the controller and the wheels are."""
NAMESPACES: Final = (
    *("unshare", "--net", "--mount", "--pid", "--mount-proc", "--fork", "--kill-child"),
)


def main() -> int:
    """Run pytest between two embedded clouds; its exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.embedded", description=__doc__)
    parser.add_argument("--wheels", type=Path, help="directory of wheels; downloaded unless told")
    parser.add_argument("--inside", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("pytest", nargs="*", default=TESTS, help="its arguments, after --")
    options = parser.parse_args()
    if options.inside:
        return _inside(options.inside, options.wheels, options.pytest)
    if why := why_volumes_cannot_be_mounted():
        print(f"Guests put volumes to use in these tests, but {why}.", file=sys.stderr)
        return 2
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    with tempfile.TemporaryDirectory(prefix="blockferry-e2e-") as directory:
        wheels = options.wheels
        if wheels is None:
            wheels = Path(directory) / "wheels"
            wheels.mkdir()
            collect(wheels)
        again = [sys.executable, "-m", "tests.embedded", "--inside", directory, "--wheels", wheels]
        again += ["--", *options.pytest]
        return subprocess.run([*NAMESPACES, *again], cwd=ROOT, check=False).returncode


def _inside(directory: Path, wheels: Path, arguments: list[str]) -> int:
    """The rest, with no network but what is made here."""
    memory = directory / "clouds"
    memory.mkdir()
    _run("mount", "-t", "tmpfs", "-o", "size=50%", "blockferry-e2e", memory)
    _make_network()
    with contextlib.ExitStack() as stack:
        clouds = [
            stack.enter_context(EmbeddedCloud(name, memory, ipv6_cidr=cidr))
            for name, cidr in NETWORKS.items()
        ]
        kept = {name: said for name, said in os.environ.items() if "BLOCKFERRY" not in name}
        environment = {**kept, "OS_CLIENT_CONFIG_FILE": str(clouds[0].clouds_yaml)}
        for version, address in HERE.items():
            url = stack.enter_context(_served(wheels, address))
            family = "_IPV6" if version == 6 else ""
            for side in ("SOURCE", "DESTINATION"):
                environment[f"BLOCKFERRY_E2E_{side}_WHEELS{family}"] = url
        place = ("--basetemp", str(memory / "pytest"), "-p", "no:cacheprovider")
        tests = [sys.executable, "-m", "pytest", "-m", "e2e", *place, *arguments]
        code = subprocess.run(tests, cwd=ROOT, env=environment, check=False).returncode
    problems = "".join(text for cloud in clouds for text in cloud.problems)
    print(problems, end="", file=sys.stderr)
    return code or bool(problems)


def _make_network() -> None:
    """Loopback, whose IPv6 networks are all ours and may be bound address by address."""
    _run("ip", "link", "set", "lo", "up")
    _run("ip", "address", "add", f"{HERE[6]}/128", "dev", "lo", "nodad")
    for network in NETWORKS.values():
        _run("ip", "route", "add", "local", network, "dev", "lo")
    Path("/proc/sys/net/ipv6/ip_nonlocal_bind").write_text("1\n")


@contextlib.contextmanager
def _served(directory: Path, address: str) -> Iterator[str]:
    """As `blockferry wheels serve` does it; the URL."""
    with WheelServer(directory, address, 0) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        yield server.url
        server.shutdown()
        thread.join()


def _run(*command: str | Path) -> None:
    path = f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin"
    subprocess.run(command, env={"PATH": path}, check=True, timeout=30)


if __name__ == "__main__":
    sys.exit(main())
