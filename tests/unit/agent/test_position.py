from pathlib import Path

import pytest

from blockferry.limits import CHUNK_BYTES
from blockferry_agent.chunk import digest, zero_digest
from blockferry_agent.manifest import Manifest
from blockferry_agent.position import START, Position, position_at

C = CHUNK_BYTES


@pytest.mark.parametrize(
    ("layout", "tail", "expected"),
    [
        ("", 0, START),
        ("D0D0", C, Position(4 * C, 2 * C, 2 * C)),
        ("D00", 9, Position(2 * C + 9, C, C + 9)),
        ("D0D", 9, Position(2 * C + 9, C + 9, C)),
        ("0", 1, Position(1, 0, 1)),
    ],
    ids=["empty", "whole", "zero-tail", "data-tail", "one-byte"],
)
def test_it_is_counted_from_the_manifest(
    tmp_path: Path, layout: str, tail: int, expected: Position
) -> None:
    with Manifest.open(tmp_path / "manifest", expected.offset_bytes) as manifest:
        for index, letter in enumerate(layout):
            length = tail if index == len(layout) - 1 else C
            zeros = zero_digest(length) if letter == "0" else digest(b"data")
            manifest.put(index, zeros)
        assert position_at(manifest, expected.offset_bytes) == expected


def test_pieces_add_up() -> None:
    assert START.plus(5, 0).plus(0, 7) == Position(12, 5, 7)
