from pathlib import Path

import pytest

from blockferry.errors import NotFoundError, UsageError
from blockferry.limits import MIB
from blockferry_agent.chunk import digest
from blockferry_agent.transfers import TransferFiles

DIGESTS = b"".join(digest(b"%d" % number) for number in range(5))


def test_a_manifest_given_is_the_one_that_is_used(tmp_path: Path) -> None:
    files = TransferFiles(tmp_path)
    assert files.write("m-1", [(0, DIGESTS[:64]), (2, DIGESTS[64:])]) == 5
    assert b"".join(run for _, run in files.read("m-1", 0)) == DIGESTS
    assert [*files.read("m-1", 3)] == [(3, DIGESTS[96:])]
    with files.manifest("m-1", 5 * MIB) as manifest:
        assert manifest.count == 5


@pytest.mark.parametrize(
    ("given", "known"),
    [
        pytest.param([(0, DIGESTS[:32])], DIGESTS, id="less"),
        pytest.param([(0, DIGESTS[:32]), (1, DIGESTS[32:])], DIGESTS, id="the same"),
        pytest.param([(0, DIGESTS[:32]), (1, DIGESTS[:32])], DIGESTS[:32] * 2, id="another"),
    ],
)
def test_a_manifest_given_adds_to_the_one_before(
    tmp_path: Path, given: list[tuple[int, bytes]], known: bytes
) -> None:
    files = TransferFiles(tmp_path)
    files.write("m-1", [(0, DIGESTS)])
    assert files.write("m-1", given) == len(known) // 32
    assert b"".join(run for _, run in files.read("m-1", 0)) == known


def test_a_manifest_with_a_gap_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError):
        TransferFiles(tmp_path).write("m-1", [(1, DIGESTS)])


def test_a_transfer_that_is_not_known(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError):
        [*TransferFiles(tmp_path).read("m-1", 0)]


@pytest.mark.parametrize("name", ["", "../etc", "a/b", ".", "..", "UPPER", "a" * 60])
def test_no_id_leaves_the_directory(tmp_path: Path, name: str) -> None:
    files = TransferFiles(tmp_path / "state")
    with pytest.raises(UsageError):
        files.journal(name)
    with pytest.raises(UsageError):
        files.write(name, [(0, DIGESTS)])


def test_only_its_own_user_may_look(tmp_path: Path) -> None:
    files = TransferFiles(tmp_path / "state")
    files.write("m-1", [(0, DIGESTS)])
    directory = tmp_path / "state" / "transfers" / "m-1"
    assert directory.stat().st_mode & 0o777 == 0o700
    assert (directory / "manifest").stat().st_mode & 0o777 == 0o600
