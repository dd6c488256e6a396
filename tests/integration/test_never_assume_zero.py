"""Zeros arrive as zeros on real block devices, whatever was there, with nothing read back after.

`--verify none` on purpose: what makes zeros must not lean on the proof.
"""

import os
import random
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from blockferry.limits import MIB
from blockferry.v1 import agent_pb2
from tests.agents import Pair
from tests.layouts import content, make_file
from tests.loops import loop_device

LAYOUT = "D00-R0--D0"
SIZE = 12 * MIB
GARBAGE = random.Random(12).randbytes(SIZE)


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    with Pair(tmp_path_factory.mktemp("agents")) as pair:
        yield pair


def thick(path: Path) -> bytes:
    path.write_bytes(GARBAGE)
    return GARBAGE


def thin(path: Path) -> bytes:
    path.touch()
    os.truncate(path, SIZE)
    return bytes(SIZE)


def thin_but_used(path: Path) -> bytes:
    """A reused extent: garbage in the middle, holes around it."""
    thin(path)
    with path.open("r+b") as file:
        file.seek(MIB // 2)
        file.write(GARBAGE[: 5 * MIB])
    return path.read_bytes()


@pytest.mark.root
@pytest.mark.parametrize("sector", ["512", "4096"])
@pytest.mark.parametrize("make", [thick, thin, thin_but_used])
@pytest.mark.parametrize("tail", [MIB, 512, 4096 + 512], ids=["whole", "512", "4608"])
def test_zeros_are_zeros(
    pair: Pair,
    tmp_path: Path,
    sector: str,
    make: Callable[[Path], bytes],
    tail: int,
) -> None:
    source = make_file(tmp_path / "source", LAYOUT, tail_bytes=tail)
    wanted = content(LAYOUT, tail_bytes=tail)
    backing = tmp_path / "backing"
    before = make(backing)
    with loop_device(backing, "--sector-size", sector) as device:
        receive = pair.receive(
            device, len(wanted), verify=agent_pb2.VERIFY_NONE, identity=str(tmp_path)
        )
        copy = pair.copy(source)
        assert pair.source.finish(copy.id).state == agent_pb2.JOB_STATE_SUCCEEDED
        job = pair.sink.finish(receive.id)
    assert job.state == agent_pb2.JOB_STATE_SUCCEEDED
    assert backing.read_bytes() == wanted + before[len(wanted) :]
    if make is thin:
        # What read as zeros already was left alone: 2 chunks of data, the last and a little.
        assert backing.stat().st_blocks * 512 <= 4 * MIB
