"""The ways to move a device that are compared, each as one shell command.

All end with the data synced at the destination, and with the destination's bytes
compared with the source's outside of the time measured. None but Blockferry
verifies anything itself.
"""

import compileall
import importlib
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.bench import nbd
from tests.bench.commands import Run, find, run
from tests.bench.datasets import Dataset
from tests.bench.sshd import Sshd

Mover = Callable[[Dataset, Path], Run]


@dataclass(frozen=True)
class Way:
    """A way to move a file to a file.

    Attributes:
        ours: Whether it is Blockferry, and so is measured beside the others.
    """

    name: str
    move: Mover
    ours: bool = False


@dataclass(frozen=True)
class Bench:
    """Where the ways find what they need.

    Attributes:
        certificates: Of the NBD export; None when a tool for them is missing.
    """

    directory: Path
    daemon: Sshd
    port: int
    certificates: Path


def compile_ours() -> None:
    """Have our packages compiled, as pip compiles what it installs for people.

    From a checkout Python does it at the first start, or where PYTHONDONTWRITEBYTECODE is set
    at every one: 0.2 s of a copy.
    """
    for package in ("blockferry", "blockferry_agent", "blockferry_controller"):
        for directory in importlib.import_module(package).__path__:
            compileall.compile_dir(directory, quiet=1)


def blockferry(bench: Bench, name: str, *options: str) -> Way:
    """`blockferry copy` with its defaults and `options`."""

    def move(data: Dataset, destination: Path) -> Run:
        return run(blockferry_command(bench.directory, data, destination, *options))

    return Way(f"blockferry copy{name}", move, ours=True)


def blockferry_command(directory: Path, data: Dataset, destination: Path, *options: str) -> str:
    """`blockferry copy` as a person types it; its state goes into `directory`."""
    command = Path(sys.executable).with_name("blockferry")
    state = directory / "state" / "state.db"
    return (
        f"{command} copy {data.path} {destination} {' '.join(options)} "
        f"-o json --state sqlite:///{state}"
    )


def peers(bench: Bench) -> Iterator[Callable[[], Way]]:
    """Makers of all other ways; one raises MissingPeerError where its tool is not here."""
    yield lambda: _pipe(bench, GZIP, "dd if={} status=none | gzip -1", "gunzip", "")
    yield lambda: _pipe(bench, GZIP_4M, "dd bs=4M if={} status=none | gzip -1", "gunzip")
    yield lambda: _zstd(bench)
    yield lambda: _pipe(bench, "dd | ssh", "dd bs=4M if={} status=none", "cat")
    yield lambda: _nbdcopy(bench)
    yield lambda: _qemu_img(bench)
    yield lambda: _rsync(bench)


GZIP = "manual: dd | gzip -1 | ssh"
GZIP_4M = "manual, bs=4M"
ZSTD = "dd | zstd -1 -T0 | ssh"
NBDCOPY = "nbdcopy, TLS"


def _zstd(bench: Bench) -> Way:
    find("zstd", "zstd")
    return _pipe(bench, ZSTD, "dd bs=4M if={} status=none | zstd -1 -T0", "zstd -d")


def _pipe(bench: Bench, name: str, there: str, here: str, size: str = "bs=4M") -> Way:
    """The manual procedure: the source's side runs `there`, the destination's `here`."""

    def move(data: Dataset, destination: Path) -> Run:
        remote = there.format(data.path)
        return run(
            f'{bench.daemon.client} "{remote}" | {here} '
            f"| dd {size} of={destination} conv=notrunc,fsync status=none"
        )

    return Way(name, move)


def _nbdcopy(bench: Bench) -> Way:
    find("nbdcopy", "libnbd-bin")
    find("nbdkit", "nbdkit")

    def move(data: Dataset, destination: Path) -> Run:
        with _export(bench, destination) as served:
            return run(f"nbdcopy --flush {data.path} '{served.uri}'")

    return Way(NBDCOPY, move)


def _qemu_img(bench: Bench) -> Way:
    find("qemu-img", "qemu-utils")
    find("nbdkit", "nbdkit")

    def move(data: Dataset, destination: Path) -> Run:
        with _export(bench, destination) as served:
            tls = f"tls-creds-x509,id=tls,endpoint=client,dir={served.certificates}"
            target = f"driver=nbd,host={served.host},port={served.port},tls-creds=tls"
            return run(
                f"qemu-img convert -n -f raw --object {tls} --target-image-opts "
                f"{data.path} {target}"
            )

    return Way("qemu-img convert, TLS", move)


def _rsync(bench: Bench) -> Way:
    find("rsync", "rsync")

    def move(data: Dataset, destination: Path) -> Run:
        return run(
            f"rsync --inplace --whole-file --fsync -e '{bench.daemon.options}' "
            f"{bench.daemon.login}:{data.path} {destination}"
        )

    return Way("rsync --inplace, ssh", move)


@contextmanager
def _export(bench: Bench, destination: Path) -> Iterator[nbd.Export]:
    with nbd.export(destination, bench.certificates, "127.0.0.1", bench.port) as served:
        yield served
