from collections.abc import Callable
from pathlib import Path

import pytest

from blockferry.errors import BlockferryError, IntegrityError
from blockferry.limits import MIB
from blockferry_agent.chunk import digest, zero_digest
from blockferry_agent.excerpt import Excerpt, SealedManifest
from blockferry_agent.manifest import Manifest
from tests.layouts import chunk, content, make_memory

LAYOUT, TAIL = "DR0RDR", 77
SIZE = 5 * MIB + TAIL
RANGES = [(MIB, 3 * MIB), (5 * MIB, SIZE)]


def read(device: Excerpt, offset: int, length: int) -> bytes:
    buffer = bytearray(length)
    device.read_into(offset, memoryview(buffer))
    return bytes(buffer)


def test_its_ranges_lie_end_to_end() -> None:
    device = make_memory(LAYOUT, tail_bytes=TAIL)
    whole = content(LAYOUT, tail_bytes=TAIL)
    excerpt = Excerpt(device, RANGES, SIZE)
    parts = whole[MIB : 3 * MIB] + whole[5 * MIB :]
    assert excerpt.size_bytes == len(parts)
    assert read(excerpt, 0, len(parts)) == parts
    assert read(excerpt, 2 * MIB - 5, 10) == parts[2 * MIB - 5 : 2 * MIB + 5]


def test_what_lies_between_is_not_written() -> None:
    device = make_memory(LAYOUT, tail_bytes=TAIL)
    before = device.content
    excerpt = Excerpt(device, RANGES, SIZE)
    excerpt.write_at(0, b"\xaa" * excerpt.size_bytes)
    assert device.content == (
        before[:MIB] + b"\xaa" * 2 * MIB + before[3 * MIB : 5 * MIB] + b"\xaa" * TAIL
    )


@pytest.mark.parametrize(
    "ranges",
    [
        [(0, 0)],
        [(0, 5)],
        [(5, MIB)],
        [(MIB, 0)],
        [(0, 2 * MIB), (MIB, 3 * MIB)],
        [(0, MIB), (MIB, 2 * MIB)],
        [(2 * MIB, 3 * MIB), (0, MIB)],
        [(5 * MIB, 6 * MIB)],
        [(-MIB, 0)],
    ],
    ids=[
        "empty", "ends-off-the-grid", "starts-off-the-grid", "backwards", "overlapping",
        "touching", "descending", "beyond", "negative",
    ],
)  # fmt: skip
def test_ranges_that_cannot_be(ranges: list[tuple[int, int]]) -> None:
    with pytest.raises(BlockferryError) as caught:
        Excerpt(make_memory(LAYOUT, tail_bytes=TAIL), ranges, SIZE)
    assert caught.value.reason == "RANGES_INVALID"


def test_too_many_ranges() -> None:
    ranges = [(at * MIB, (at + 1) * MIB) for at in range(0, 2050, 2)]
    with pytest.raises(BlockferryError) as caught:
        Excerpt(make_memory("D"), ranges, 4096 * MIB)
    assert caught.value.reason == "RANGES_INVALID"
    Excerpt(make_memory("D"), ranges[:-1], 4096 * MIB)


@pytest.fixture
def manifest(tmp_path: Path) -> Manifest:
    known = Manifest.open(tmp_path / "manifest", SIZE)
    for index in range(len(LAYOUT)):
        known.put(index, digest(chunk(LAYOUT, index, tail_bytes=TAIL)))
    return known


def test_it_knows_its_digests(manifest: Manifest) -> None:
    excerpt = Excerpt(make_memory(LAYOUT, tail_bytes=TAIL), RANGES, SIZE)
    wanted = [digest(chunk(LAYOUT, index, tail_bytes=TAIL)) for index in (1, 2, 5)]
    assert excerpt.digests_in(manifest) == b"".join(wanted)
    manifest.truncate(5)
    with pytest.raises(BlockferryError) as caught:
        excerpt.digests_in(manifest)
    assert caught.value.reason == "MANIFEST_INCOMPLETE"


def test_a_sealed_manifest_takes_nothing_else(tmp_path: Path, manifest: Manifest) -> None:
    excerpt = Excerpt(make_memory(LAYOUT, tail_bytes=TAIL), RANGES, SIZE)
    with SealedManifest.open(tmp_path / "sealed", excerpt.size_bytes) as sealed:
        sealed.seal(excerpt, excerpt.digests_in(manifest))
        sealed.put(0, digest(chunk(LAYOUT, 1)))
        sealed.put_zeros(1, 1)
        wrong: list[Callable[[], None]] = [
            lambda: sealed.put(2, digest(b"other")),
            lambda: sealed.put_zeros(2, 1),
            lambda: sealed.put(1, zero_digest(MIB) + digest(b"other")),
        ]
        for put in wrong:
            with pytest.raises(IntegrityError) as caught:
                put()
            assert caught.value.reason == "SOURCE_CHANGED"
            assert caught.value.metadata["ranges"] == f"[{5 * MIB},{SIZE})"
        assert sealed.count == 3
