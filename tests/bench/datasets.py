"""Data to move, the same on every run of a machine: files, made from a seed.

Each is made once per bench run and only read after that.

    os      a filesystem of this machine's own programs and libraries, half full
    full    what the files of `os` hold, one after another: no free space
    text    lines of a log: compresses about five times
    random  nothing to gain
    sparse  mostly holes: 1/16 of it data of `full`, in 64 stripes
    zero    nothing but zeros
"""

import os
import random
import shutil
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

MIB = 1 << 20
GIB = 1 << 30
SEED = 20261122
STRIPES = 64


@dataclass(frozen=True)
class Dataset:
    """What is moved.

    Attributes:
        path: The source, a file.
        size_bytes: Its logical size.
        data_bytes: What of it is not zero, roughly.
    """

    name: str
    path: Path
    size_bytes: int
    data_bytes: int


def make(name: str, directory: Path, gib: float) -> Dataset:
    """Make the data set `name`, of `gib` GiB of data (`sparse`: 16 times that, logically)."""
    path = directory / f"{name}.img"
    data = int(gib * GIB)
    _MAKERS[name](path, data)
    used = path.stat().st_blocks * 512
    return Dataset(name, path, path.stat().st_size, used)


def scaled(directory: Path, size_bytes: int, every: int = 1) -> Dataset:
    """One stripe of 64 MiB in `every` random data, the others holes: for the cost per GiB."""
    path = directory / f"scaled-{size_bytes}.img"
    fill_stripes(path, size_bytes, every, _noise())
    return Dataset("scaled", path, size_bytes, path.stat().st_blocks * 512)


def fill_stripes(path: Path, size_bytes: int, every: int, blocks: Iterator[bytes]) -> None:
    """Write a file of holes, one stripe of 64 MiB in `every` filled with blocks of 1 MiB."""
    stripe = 64 * MIB
    with path.open("wb") as file:
        file.truncate(size_bytes)
        for start in range(0, size_bytes, every * stripe):
            file.seek(start)
            for _ in range(min(stripe, size_bytes - start) // MIB):
                file.write(next(blocks))


def _os(path: Path, data: int) -> None:
    tree = path.with_suffix(".tree")
    try:
        _copy_files(tree, data)
        path.touch()
        os.truncate(path, 2 * data)
        subprocess.run(
            ["mke2fs", "-q", "-F", "-t", "ext4", "-E", "hash_seed=" + "0" * 8 + "-0000-4000-8000-"
             + "0" * 12, "-d", str(tree), str(path)],
            check=True, env={**os.environ, "PATH": f"{os.environ['PATH']}:/usr/sbin:/sbin"},
        )  # fmt: skip
    finally:
        shutil.rmtree(tree, ignore_errors=True)


def _copy_files(tree: Path, size_bytes: int) -> None:
    """Copy programs and libraries into `tree` until it holds nearly `size_bytes`."""
    left = size_bytes - size_bytes // 16
    tree.mkdir()
    for number, (source, size) in enumerate(_system_files()):
        if size > left:
            continue
        folder = tree / f"{number % 256:02x}"
        folder.mkdir(exist_ok=True)
        shutil.copyfile(source, folder / f"{number}-{source.name}"[:120])
        left -= -(-size // 4096) * 4096
        if left < MIB:
            return


def _full(path: Path, data: int) -> None:
    with path.open("wb") as file:
        for source, _ in _system_files():
            block = source.read_bytes()
            file.write(block[: data - file.tell()])
            if file.tell() == data:
                return


def _system_files() -> Iterator[tuple[Path, int]]:
    """Regular files under /usr and their sizes, in an order drawn from the seed, for ever."""
    found = []
    for folder in ("/usr/bin", "/usr/lib", "/usr/share"):
        for where, _, names in os.walk(folder):
            paths = (Path(where, name) for name in names)
            found += [(one, one.stat().st_size) for one in paths if _readable(one)]
    found = sorted((path, size) for path, size in found if 0 < size < 64 * MIB)
    if sum(size for _, size in found) < 64 * MIB:
        raise RuntimeError("this machine has too few files under /usr to make a filesystem of")
    random.Random(SEED).shuffle(found)
    while True:
        yield from found


def _readable(path: Path) -> bool:
    return path.is_file() and not path.is_symlink() and os.access(path, os.R_OK)


def _text(path: Path, data: int) -> None:
    """Lines of a log: a growing time, one of 4096 messages, a number."""
    source = random.Random(SEED)
    words = ["".join(source.choices("etaoinshrdlu", k=source.randint(2, 11))) for _ in range(8192)]
    messages = [" ".join(source.choices(words, k=source.randint(4, 16))) for _ in range(4096)]
    seconds = 1_700_000_000
    with path.open("wb") as file:
        while file.tell() < data:
            chosen = source.choices(messages, k=20_000)
            lines = "\n".join(
                f"{seconds + at // 7}.{at * 7919 % 1000:03} {message} {at * at % 65_521}"
                for at, message in enumerate(chosen)
            )
            seconds += len(chosen) // 7
            file.write(lines.encode()[: data - file.tell()])


def _random(path: Path, data: int) -> None:
    blocks = _noise()
    with path.open("wb") as file:
        for _ in range(data // MIB):
            file.write(next(blocks))


def _noise() -> Iterator[bytes]:
    source = random.Random(SEED)
    while True:
        yield source.randbytes(MIB)


def _sparse(path: Path, data: int) -> None:
    _full(path, data)
    filled = path.with_suffix(".filled")
    path.rename(filled)
    stripe = data // STRIPES
    with path.open("wb") as file, filled.open("rb") as origin:
        file.truncate(16 * data)
        for number in range(STRIPES):
            file.seek(16 * stripe * number)
            file.write(origin.read(stripe))
    filled.unlink()


def _zero(path: Path, data: int) -> None:
    block = bytes(MIB)
    with path.open("wb") as file:
        for _ in range(data // MIB):
            file.write(block)


_MAKERS: dict[str, Callable[[Path, int], None]] = {
    "os": _os,
    "full": _full,
    "text": _text,
    "random": _random,
    "sparse": _sparse,
    "zero": _zero,
}
NAMES = tuple(_MAKERS)
