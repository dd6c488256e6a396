"""A fleet in three waves between two embedded clouds, and the command line that moves it.

Everything is real but the clouds. `make fleet-demo` and tests/integration/test_batch.py play it.
"""

import contextlib
import errno
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from blockferry import __version__
from tests.sim import EmbeddedClouds

MIB = 1 << 20


@dataclass
class Show:
    """Both clouds, a fleet of `count` volumes, and the command line."""

    clouds: EmbeddedClouds
    directory: Path
    count: int
    concurrency: int
    state_url: str
    pooled: bool = False
    """Whether pairs of instances are shared: as many as volumes move at a time."""
    volumes: dict[str, str] = field(default_factory=dict)
    """Source volumes' ids by name."""

    @property
    def fleet(self) -> Path:
        return self.directory / "fleet.yaml"

    @property
    def environment(self) -> dict[str, str]:
        kept = {key: text for key, text in os.environ.items() if not key.startswith("BLOCKFERRY_")}
        return kept | {
            "OS_CLIENT_CONFIG_FILE": str(self.clouds.clouds_yaml),
            "BLOCKFERRY_STATE": self.state_url,
            "XDG_CONFIG_HOME": str(self.directory),
            "XDG_STATE_HOME": str(self.directory),
        }

    def fill(self) -> None:
        """Volumes with different contents: noise, text, nothing."""
        for cloud in (self.clouds.east, self.clouds.west):
            cloud.quotas |= {key: value * 50 for key, value in cloud.quotas.items()}
        for at in range(self.count):
            name = f"{('canary', 'db', 'web')[0 if at < 3 else 1 + at % 2]}-{at:02}"
            volume_id = self.clouds.east.make_volume(name, 1)
            chance = random.Random(at)
            with self.clouds.east.volume_path(volume_id).open("r+b") as file:
                for _ in range(1 + at % 4):
                    file.seek(chance.randrange(1000) * MIB + chance.randrange(MIB))
                    file.write(chance.randbytes(MIB if at % 2 else 8192) * (1 + at % 3))
            self.volumes[name] = volume_id
        waves: list[dict[str, Any]] = [
            {"name": "canary", "select": {"names": "canary-*"}},
            {"name": "databases", "select": {"names": "db-*"}, "gate": {"failures_below": "50%"}},
            {"name": "rest"},
        ]
        document = {
            "fleet": "show", "from": "east", "to": "west", "select": {"names": "*"},
            "waves": waves, "limits": {"concurrency": self.concurrency}, "attempts": 4,
            "map": {"metadata": {"set": {"was": "{id}"}}},
        }  # fmt: skip
        if self.pooled:
            document["pool"] = {"max": self.concurrency}
        self.fleet.write_text(json.dumps(document, indent=2), encoding="utf-8")

    def break_things(self) -> None:
        """Four faults, two in each cloud; `unspent` tells which have not happened."""
        east, west = self.clouds.east.faults, self.clouds.west.faults
        east.fail("POST", r"/servers$", status=500, service="nova")
        west.no_valid_host()
        west.attach_error()
        east.lose_response("POST", r"/ports$")

    def unspent(self) -> list[str]:
        """Faults that were to happen and have not."""
        clouds = (self.clouds.east, self.clouds.west)
        return [f"{cloud.name}: {one}" for cloud in clouds for one in cloud.faults.unspent()]

    def start(self, *arguments: str) -> "subprocess.Popen[str]":
        return subprocess.Popen(
            [sys.executable, "-m", "blockferry_controller", *arguments],
            env=self.environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip

    def run(self, *arguments: str, seconds: float) -> "subprocess.CompletedProcess[str]":
        with ended(self.start(*arguments)) as process:
            stdout, stderr = process.communicate(timeout=seconds)
        return subprocess.CompletedProcess(process.args, process.returncode, stdout, stderr)

    def kill_in_the_middle(self, *, seconds: float) -> int:
        """Run the batch, and kill it when a third is through; how many were."""
        # Of sixty volumes it tells more than a pipe holds, and a full pipe would stop it.
        with ended(self.start("batch", str(self.fleet))) as process:
            told = drained(process)
            deadline = time.monotonic() + seconds
            while (done := self.succeeded()) < max(1, self.count // 3):
                if process.poll() is not None:
                    raise RuntimeError("".join(told)[-4000:])
                if time.monotonic() > deadline:
                    raise TimeoutError(f"{done} of {self.count} volumes in {seconds} s")
                time.sleep(0.5)
            process.send_signal(signal.SIGKILL)
            process.wait(20)
        return done

    def succeeded(self) -> int:
        """How many volumes the state says are through."""
        document = self.state()
        return int(document.get("counts", {}).get("SUCCEEDED", 0))

    def state(self) -> dict[str, Any]:
        done = self.run("show", "show", "-o", "json", seconds=60)
        found: dict[str, Any] = json.loads(done.stdout) if done.returncode == 0 else {}
        return found

    def report(self) -> dict[str, Any]:
        """`blockferry report` of the fleet."""
        found: dict[str, Any] = json.loads(
            self.run("report", "show", "-o", "json", seconds=60).stdout
        )
        return found

    def requests(self) -> Counter[tuple[str, str]]:
        """What both clouds have answered so far, by service and kind of request."""
        return self.clouds.east.answered + self.clouds.west.answered

    def copies(self) -> dict[str, Any]:
        """Volumes in west, by the id of the one in east that each says it was made of."""
        with contextlib.closing(self.clouds.west.connect()) as sdk:
            return {one.metadata.get("was"): one for one in sdk.block_storage.volumes()}

    def unequal(self) -> list[str]:
        """Names of volumes that have no equal copy."""
        copies = self.copies()
        return [
            name
            for name, own in self.volumes.items()
            if own not in copies
            or copies[own].name != name
            or not same_bytes(
                self.clouds.east.volume_path(own), self.clouds.west.volume_path(copies[own].id)
            )
        ]

    def left(self) -> list[str]:
        """What both clouds hold but the volumes of the user."""
        found = []
        for cloud in (self.clouds.east, self.clouds.west):
            left = cloud.leftovers()
            found += [f"{cloud.name}: {kind} {one}" for kind in ("servers", "ports",
                      "security groups", "floating ips") for one in left[kind]]  # fmt: skip
            more = len(left["volumes"]) - self.count
            if more:
                found.append(f"{cloud.name}: {more} volumes too many")
        return found


def same_bytes(one: Path, other: Path) -> bool:
    """Whether two sparse files are equal; what is a hole in both is not read."""
    with one.open("rb") as first, other.open("rb") as second:
        size = os.fstat(first.fileno()).st_size
        if os.fstat(second.fileno()).st_size != size:
            return False
        spans = [*data_of(first.fileno(), size), *data_of(second.fileno(), size)]
        for start, end in spans:
            for at in range(start, end, 4 * MIB):
                length = min(4 * MIB, end - at)
                if os.pread(first.fileno(), length, at) != os.pread(second.fileno(), length, at):
                    return False
    return True


def data_of(file: int, size: int) -> Iterator[tuple[int, int]]:
    """Beginning and end of each stretch that is no hole."""
    end = 0
    while end < size:
        try:
            start = os.lseek(file, end, os.SEEK_DATA)
        except OSError as error:
            if error.errno == errno.ENXIO:
                return
            raise
        end = os.lseek(file, start, os.SEEK_HOLE)
        yield start, end


@contextlib.contextmanager
def ended(process: "subprocess.Popen[str]") -> "Iterator[subprocess.Popen[str]]":
    """Nothing of it is left when the block ends, however that does."""
    try:
        yield process
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
        for stream in (process.stdout, process.stderr):
            if stream is not None:
                stream.close()


def drained(process: "subprocess.Popen[str]") -> list[str]:
    """What it says on standard error, read from now on until it has ended."""
    assert process.stderr is not None
    told: list[str] = []
    threading.Thread(target=told.extend, args=(process.stderr,), daemon=True).start()
    return told


@contextlib.contextmanager
def show(
    directory: Path, *, count: int, concurrency: int, state_url: str = "", pooled: bool = False
) -> Iterator[Show]:
    """A stage with its volumes; the state is a file of its own unless told."""
    state_url = state_url or f"sqlite:///{directory}/state/state.db"
    with EmbeddedClouds(directory / "clouds", prepared_version=__version__) as clouds:
        stage = Show(clouds, directory, count, concurrency, state_url, pooled)
        stage.fill()
        yield stage
