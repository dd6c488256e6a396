import stat
import struct
from pathlib import Path

import pytest
from blake3 import blake3

from blockferry.errors import BlockferryError, DeviceError, PreconditionError, UsageError
from blockferry.limits import CHUNK_BYTES, DIGEST_BYTES, MANIFEST_RUN_CHUNKS
from blockferry_agent.chunk import digest, zero_digest
from blockferry_agent.manifest import Manifest, RootHasher

SIZE = 5 * CHUNK_BYTES + 512
ROOT_OF_TWO = "1264b5244aaa78309dc0096b7fcc004bace60e0454e0fcd7c32d7e4057be6974"
ROOT_OF_NONE = "434ae27015c2dbc3e1877e63703afaa15f88d4dbf628acf90cb81c02529059ef"


def digests(count: int, first: int = 0) -> bytes:
    return b"".join(digest(b"chunk %d" % index) for index in range(first, first + count))


def root_by_definition(size: int, all_digests: bytes) -> bytes:
    hasher = blake3(derive_key_context="blockferry v1 manifest root")
    hasher.update(struct.pack("<QI", size, 1 << 20) + all_digests)
    return hasher.digest()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "manifest"


def reason(error: pytest.ExceptionInfo[BlockferryError]) -> str:
    return error.value.reason


def test_it_grows_and_ends_with_the_root(path: Path) -> None:
    with Manifest.open(path, SIZE) as manifest:
        counts = [manifest.count]
        manifest.put(0, digests(2))
        counts.append(manifest.count)
        manifest.put(2, digests(4, 2))
        counts.append(manifest.count)
        assert counts == [0, 2, 6]
        assert manifest.root() == root_by_definition(SIZE, digests(6))


def test_the_root_of_a_known_device_never_changes(path: Path) -> None:
    # Public: users compare it across versions and machines.
    with Manifest.open(path, CHUNK_BYTES + 3) as manifest:
        manifest.put(0, digest(b"a" * CHUNK_BYTES) + digest(b"end"))
        assert manifest.root().hex() == ROOT_OF_TWO
    assert RootHasher(0).digest().hex() == ROOT_OF_NONE


def test_size_is_part_of_the_root(path: Path) -> None:
    assert root_by_definition(SIZE, digests(6)) != root_by_definition(SIZE + 1, digests(6))
    hasher = RootHasher(SIZE + 1)
    hasher.update(digests(6))
    assert hasher.digest() == root_by_definition(SIZE + 1, digests(6))


def test_what_was_put_is_there_when_opened_again(path: Path) -> None:
    with Manifest.open(path, SIZE) as manifest:
        manifest.put(0, digests(3))
        manifest.sync()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    with Manifest.open(path, SIZE) as manifest:
        assert manifest.count == 3
        assert list(manifest.runs()) == [(0, digests(3))]


def test_a_known_part_may_be_written_again(path: Path) -> None:
    with Manifest.open(path, SIZE) as manifest:
        manifest.put(0, digests(4))
        manifest.put(2, digests(2, 90))
        manifest.put(3, digests(3, 70))
        assert manifest.count == 6
        assert list(manifest.runs()) == [(0, digests(2) + digests(1, 90) + digests(3, 70))]


@pytest.mark.parametrize(
    ("first", "data", "expected"),
    [
        (3, digests(1), "MANIFEST_GAP"),
        (-1, digests(1), "MANIFEST_GAP"),
        (2, digests(5), "DIGESTS_INVALID"),
        (2, b"", "DIGESTS_INVALID"),
        (2, digests(1)[:-1], "DIGESTS_INVALID"),
    ],
)
def test_no_gaps_and_no_excess(path: Path, first: int, data: bytes, expected: str) -> None:
    with Manifest.open(path, SIZE) as manifest:
        manifest.put(0, digests(2))
        with pytest.raises(UsageError) as caught:
            manifest.put(first, data)
        assert reason(caught) == expected
        assert list(manifest.runs()) == [(0, digests(2))]


def test_zeros_know_the_short_last_chunk(path: Path) -> None:
    with Manifest.open(path, SIZE) as manifest:
        manifest.put(0, digests(1))
        manifest.put_zeros(1, 5)
        expected = digests(1) + zero_digest(CHUNK_BYTES) * 4 + zero_digest(512)
        assert list(manifest.runs()) == [(0, expected)]


@pytest.mark.parametrize(("first", "count"), [(1, 1), (0, 0), (0, 7)])
def test_zeros_leave_no_gap_either(path: Path, first: int, count: int) -> None:
    with Manifest.open(path, SIZE) as manifest, pytest.raises(UsageError):
        manifest.put_zeros(first, count)


def test_a_large_hole_is_put_and_read_in_runs(path: Path) -> None:
    chunks = 2 * MANIFEST_RUN_CHUNKS + 7
    with Manifest.open(path, chunks * CHUNK_BYTES) as manifest:
        manifest.put_zeros(0, chunks)
        runs = list(manifest.runs())
        assert [(first, len(run) // DIGEST_BYTES) for first, run in runs] == [
            (0, MANIFEST_RUN_CHUNKS),
            (MANIFEST_RUN_CHUNKS, MANIFEST_RUN_CHUNKS),
            (2 * MANIFEST_RUN_CHUNKS, 7),
        ]
        zeros = zero_digest(CHUNK_BYTES) * chunks
        assert manifest.root() == root_by_definition(chunks * CHUNK_BYTES, zeros)


@pytest.mark.parametrize(
    ("first", "end", "expected"),
    [(0, None, (0, 4)), (1, 3, (1, 2)), (2, 99, (2, 2)), (3, 3, None), (4, None, None)],
)
def test_runs_of_a_part(
    path: Path, first: int, end: int | None, expected: tuple[int, int] | None
) -> None:
    with Manifest.open(path, SIZE) as manifest:
        manifest.put(0, digests(4))
        wanted = [] if expected is None else [(expected[0], digests(expected[1], expected[0]))]
        assert list(manifest.runs(first, end)) == wanted


def test_truncating_forgets(path: Path) -> None:
    with Manifest.open(path, SIZE) as manifest:
        manifest.put(0, digests(4))
        manifest.truncate(9)
        assert manifest.count == 4
        manifest.truncate(1)
        manifest.put(1, digests(1, 50))
        assert list(manifest.runs()) == [(0, digests(1) + digests(1, 50))]


def test_an_incomplete_manifest_has_no_root(path: Path) -> None:
    with Manifest.open(path, SIZE) as manifest:
        manifest.put(0, digests(5))
        with pytest.raises(PreconditionError) as caught:
            manifest.root()
        assert reason(caught) == "MANIFEST_INCOMPLETE"


@pytest.mark.parametrize("extra", [1, 31])
def test_a_torn_last_digest_is_cut_off(path: Path, extra: int) -> None:
    path.write_bytes(digests(2) + b"x" * extra)
    with Manifest.open(path, SIZE) as manifest:
        assert manifest.count == 2
    assert path.stat().st_size == 2 * DIGEST_BYTES


def test_more_digests_than_chunks_are_of_another_transfer(path: Path) -> None:
    path.write_bytes(digests(7))
    with Manifest.open(path, SIZE) as manifest:
        assert manifest.count == 0


def test_a_file_that_others_shortened_is_an_error(path: Path) -> None:
    with Manifest.open(path, SIZE) as manifest:
        manifest.put(0, digests(4))
        with path.open("r+b") as file:
            file.truncate(DIGEST_BYTES)
        with pytest.raises(DeviceError) as caught:
            list(manifest.runs())
        assert reason(caught) == "DEVICE_IO_READ"


def test_a_directory_is_no_manifest(tmp_path: Path) -> None:
    with pytest.raises(DeviceError) as caught:
        Manifest.open(tmp_path, SIZE)
    assert reason(caught) == "DEVICE_IO_OPEN"


def test_the_root_hasher_takes_no_more_than_there_is() -> None:
    hasher = RootHasher(SIZE)
    hasher.update(digests(6))
    with pytest.raises(UsageError):
        hasher.update(digests(1))
