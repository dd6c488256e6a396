"""`blockferry migrate` between two embedded clouds, of which one or the other is struck.

Everything but the clouds is real: the command line, guests that act on user-data,
agents over mutual TLS. One round is one volume: struck once or more, resumed after
each blow that ended a run, byte-equal and clean in the end.
"""

import contextlib
import os
import random
import shutil
import signal
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, Final

from blockferry import __version__
from blockferry.limits import GIB, MIB
from tests.sim import EmbeddedCloud, EmbeddedClouds
from tests.torture import words
from tests.torture.runs import (
    LIMIT,
    PAUSE,
    RUNS_MAX,
    SLOW,
    Blow,
    History,
    Run,
    environment,
    turn,
)
from tests.torture.tally import Broken, Tally

THEATRE: Final = "migrate"
SIGNALS: Final = {
    "SIGKILL controller": signal.SIGKILL,
    "SIGINT": signal.SIGINT,
    "SIGTERM": signal.SIGTERM,
}


def _delete(cloud: EmbeddedCloud) -> bool:
    """Somebody deletes the instance."""
    with cloud.lock:
        servers = list(cloud.nova.servers.values())
        for server in servers:
            cloud.nova.remove(server)
    return bool(servers)


def _crash(cloud: EmbeddedCloud) -> bool:
    """The guest dies; the cloud shows it as SHUTOFF."""
    with cloud.lock:
        guests = [one.guest for one in cloud.nova.servers.values() if one.guest]
    for guest in guests:
        guest.begin_kill()
    return bool(guests)


def _reboot(cloud: EmbeddedCloud) -> bool:
    """The plug is pulled and put back: another boot id, the disk as it was."""
    with cloud.lock:
        servers = [one for one in cloud.nova.servers.values() if one.status == "ACTIVE"]
        for server in servers:
            if server.guest:
                server.guest.remove(keep_disk=True)
            cloud.nova.power_on(server)
    return bool(servers)


def _refuse(cloud: EmbeddedCloud) -> bool:
    cloud.faults.fail("", ".", status=500, times=6)
    return True


def _unavailable(cloud: EmbeddedCloud) -> bool:
    cloud.faults.fail("", ".", status=503, times=25)
    return True


def _drop(cloud: EmbeddedCloud) -> bool:
    cloud.faults.drop("", ".", times=4)
    return True


def _lose_answers(cloud: EmbeddedCloud) -> bool:
    cloud.faults.lose_response("POST", ".", times=2)
    cloud.faults.lose_response("DELETE", ".", times=2)
    return True


def _expire(cloud: EmbeddedCloud) -> bool:
    cloud.expire_tokens()
    return True


ACTS: Final[dict[str, Callable[[EmbeddedCloud], bool]]] = {
    "instance deleted": _delete,
    "instance crashed": _crash,
    "instance rebooted": _reboot,
    "API answers 500": _refuse,
    "API answers 503": _unavailable,
    "API hangs up": _drop,
    "API loses answers": _lose_answers,
    "tokens expire": _expire,
}
KINDS: Final = (
    *SIGNALS,
    *(PAUSE, LIMIT),
    *(f"{side}: {act}" for side in ("source", "destination") for act in ACTS),
)


class Embedded:
    """Rounds of `migrate` between one pair of clouds; one at a time. A context manager."""

    def __init__(self, directory: Path, tally: Tally, blows_max: int = 4) -> None:
        self.directory, self._tally, self._blows_max = directory, tally, blows_max
        directory.mkdir(parents=True)
        self.clouds = EmbeddedClouds(directory / "clouds", prepared_version=__version__)

    def __enter__(self) -> "Embedded":
        (self.directory / "clouds").mkdir()
        self.clouds.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        self.clouds.__exit__(None, None, None)

    def round(self, seed: str, blows: list[Blow] | None = None) -> list[Run]:
        """One migration, struck by `blows`, or by some at random; its runs.

        Raises:
            Broken: a promise was not kept; the state stays.
        """
        place = self.directory / seed.replace(" ", "-").replace(":", "-")
        place.mkdir()
        try:
            runs = self._play(place, random.Random(seed), blows)
        except Broken as broken:
            raise Broken(f"migrate, seed {seed!r}, kept in {place}: {broken}") from broken
        finally:
            empty(self.clouds)
        shutil.rmtree(place)
        self._tally.ended(THEATRE, len(runs))
        return runs

    def _play(self, place: Path, dice: random.Random, blows: list[Blow] | None) -> list[Run]:
        data_mib = dice.randint(12, 24)
        source_id = self.clouds.east.make_volume("data", 1, fill(dice, data_mib))
        if blows is None:
            times = dice.randint(1, self._blows_max)
            blows = [Blow.random(dice, KINDS) for _ in range(times)]
        coming = list(blows)
        known = environment(place, OS_CLIENT_CONFIG_FILE=str(self.clouds.clouds_yaml))
        arguments = ["migrate", "data", "--from", "east", "--to", "west", "--limit", SLOW]
        history, runs = History(GIB), list[Run]()
        strike = partial(self._strike, known, dice)
        while len(runs) < RUNS_MAX:
            runs.append(Run(arguments, place, known, data_mib * MIB, turn(coming), strike).play())
            history.add(runs[-1])
            for cloud in (self.clouds.east, self.clouds.west):
                cloud.faults.clear()
            if runs[-1].document.get("state") == "SUCCEEDED" and runs[-1].code == 0:
                self._check_end(source_id, runs[-1].document, history)
                return runs
            arguments = ["resume", runs[-1].migration_id]
        raise history.broken(f"not done after {RUNS_MAX} runs")

    def _strike(self, known: Mapping[str, str], dice: random.Random, run: Run, blow: Blow) -> bool:
        if not run.alive:
            return False
        if blow.is_gentle:
            struck = words.say(blow.kind, run, known, dice)
        elif blow.kind in SIGNALS:
            os.kill(run.process.pid, SIGNALS[blow.kind])
            struck = True
        else:
            side, act = blow.kind.split(": ")
            struck = ACTS[act](self.clouds.east if side == "source" else self.clouds.west)
        if struck:
            self._tally.blow(THEATRE, blow.kind)
        return struck

    def _check_end(self, source_id: str, document: dict[str, Any], history: History) -> None:
        if not document["verified"]:
            raise history.broken("not verified")
        source = self.clouds.east.volume_path(source_id)
        destination = self.clouds.west.volume_path(document["destination_volume_id"])
        if differing := differs_at(source, destination):
            raise history.broken(f"bytes differ in the MiBs at {differing}")
        for cloud in (self.clouds.east, self.clouds.west):
            if left := left_in(cloud):
                raise history.broken(f"left in {cloud.name}: {left}")
            if cloud.problems:
                raise history.broken(f"the embedded cloud itself is wrong: {cloud.problems}")


def empty(clouds: EmbeddedClouds) -> None:
    """Take away faults, servers and volumes."""
    for cloud in (clouds.east, clouds.west):
        cloud.faults.clear()
        with cloud.lock:
            for server in list(cloud.nova.servers.values()):
                cloud.nova.remove(server)
        with contextlib.closing(cloud.connect()) as sdk:
            for volume in list(sdk.block_storage.volumes()):
                sdk.block_storage.delete_volume(volume.id, force=True)
                sdk.block_storage.wait_for_delete(volume, interval=0.05)


def fill(dice: random.Random, data_mib: int) -> Callable[[Path], None]:
    """Writes MiBs of noise all over a volume of a GiB."""
    starts = sorted(dice.sample(range(GIB // MIB), data_mib))

    def write(path: Path) -> None:
        with path.open("r+b") as file:
            for start in starts:
                file.seek(start * MIB)
                file.write(dice.randbytes(MIB))

    return write


def differs_at(source: Path, destination: Path) -> list[int]:
    """Offsets of the MiBs in which two volumes of a GiB differ."""
    with source.open("rb") as one, destination.open("rb") as other:
        return [
            offset
            for offset in _data(one, other)
            if os.pread(one.fileno(), MIB, offset) != os.pread(other.fileno(), MIB, offset)
        ]


def left_in(cloud: EmbeddedCloud) -> str:
    """What there is but one volume, at rest and without a tag; empty when nothing is."""
    left = cloud.leftovers()
    tags = [v.metadata for v in cloud.cinder.volumes.values() if v.metadata]
    states = {volume.status for volume in cloud.cinder.volumes.values()}
    volumes = left.pop("volumes")
    if any(left.values()) or volumes != ["data"] or tags or states != {"available"}:
        return f"{left} {volumes} {tags} {states}"
    return ""


def _data(*files: BinaryIO) -> Iterator[int]:
    """Offsets of the MiBs in which any of the files holds something."""
    for offset in range(0, GIB, MIB):
        if not all(_is_hole(file, offset) for file in files):
            yield offset


def _is_hole(file: BinaryIO, start: int) -> bool:
    try:
        return os.lseek(file.fileno(), start, os.SEEK_DATA) >= start + MIB
    except OSError:
        return True
