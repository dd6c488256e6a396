from pathlib import Path

import pytest

from blockferry.errors import CancelledError, DeviceError, IntegrityError
from blockferry.limits import CHUNK_BYTES, MIB
from blockferry_agent.chunk import digest
from blockferry_agent.manifest import Manifest, RootHasher
from blockferry_agent.memory_device import MemoryDevice
from blockferry_agent.proof import Proof
from blockferry_agent.stageclock import StageClock
from blockferry_agent.survey import STAGES, Survey
from tests.layouts import chunk, make_memory


def survey(device: MemoryDevice, start: int = 0) -> Survey:
    return Survey(device, start, device.size_bytes, threads=3, clock=StageClock(*STAGES))


@pytest.mark.parametrize("layout", ["", "R", "DR0-", "--DD00RR-D"])
@pytest.mark.parametrize("tail", [CHUNK_BYTES, 4097])
@pytest.mark.parametrize("tells_holes", [True, False])
def test_digests_are_those_of_the_chunks(layout: str, tail: int, tells_holes: bool) -> None:
    device = make_memory(layout, tail_bytes=tail, tells_holes=tells_holes)
    found = b"".join(digests for _, digests, _ in survey(device))
    expected = b"".join(
        digest(chunk(layout, index, tail_bytes=tail)) for index in range(len(layout))
    )
    assert found == expected


def test_holes_are_not_read() -> None:
    device = make_memory("D--D")
    assert [zero for _, _, zero in survey(device)] == [False, True, False]
    assert device.calls["read"] == 2


def test_a_read_error_ends_it() -> None:
    device = make_memory("RRRRRRRR")
    device.fail("read", 3)
    with pytest.raises(DeviceError):
        [*survey(device)]


def test_it_can_be_stopped() -> None:
    device = make_memory("RRRR")
    walk = survey(device)
    results = iter(walk)
    next(results)
    walk.fail(CancelledError("CANCELLED", "enough"))
    with pytest.raises(CancelledError):
        list(results)


def manifest_of(device: MemoryDevice, path: Path) -> Manifest:
    manifest = Manifest.open(path, device.size_bytes)
    for piece, digests, _ in survey(device):
        manifest.put(piece.offset_bytes // CHUNK_BYTES, digests)
    return manifest


def prove(device: MemoryDevice, manifest: Manifest, size: int | None = None) -> Proof:
    size = device.size_bytes if size is None else size
    return Proof(device, manifest, size, threads=2, clock=StageClock(*STAGES))


def test_a_proof_gives_the_root_of_the_medium(tmp_path: Path) -> None:
    device = make_memory("DR0-D", tail_bytes=77)
    with manifest_of(device, tmp_path / "manifest") as manifest:
        proof = prove(device, manifest)
        assert proof.finish() == manifest.root()
        assert proof.verified_bytes == device.size_bytes


def test_a_proof_of_nothing(tmp_path: Path) -> None:
    device = make_memory("")
    with manifest_of(device, tmp_path / "manifest") as manifest:
        assert prove(device, manifest).finish() == RootHasher(0).digest()


def test_a_proof_looks_no_further_than_the_transfer(tmp_path: Path) -> None:
    small, large = make_memory("DR"), make_memory("DRRR")
    with manifest_of(small, tmp_path / "manifest") as manifest:
        assert prove(large, manifest, small.size_bytes).finish() == manifest.root()


@pytest.mark.parametrize(
    ("spoiled", "ranges"),
    [
        ([0], f"[0,{MIB})"),
        ([2, 3], f"[{2 * MIB},{4 * MIB})"),
        ([1, 4], f"[{MIB},{2 * MIB}) [{4 * MIB},{4 * MIB + 77})"),
    ],
    ids=["first", "neighbours", "apart"],
)
def test_a_proof_names_what_differs(tmp_path: Path, spoiled: list[int], ranges: str) -> None:
    device = make_memory("DR0-D", tail_bytes=77)
    with manifest_of(device, tmp_path / "manifest") as manifest:
        for index in spoiled:
            device.write_at(index * MIB + 7, b"spoiled")
        proof = prove(device, manifest)
        with pytest.raises(IntegrityError) as caught:
            proof.finish()
        assert caught.value.reason == "READBACK_MISMATCH"
        assert caught.value.metadata["ranges"] == ranges
        assert proof.differing == tuple(
            tuple(map(int, one[1:-1].split(","))) for one in ranges.split()
        )
        good = [77 if index == 4 else MIB for index in range(5) if index not in spoiled]
        assert proof.verified_bytes == sum(good)


def test_a_proof_names_a_bounded_number_of_ranges(tmp_path: Path) -> None:
    device = make_memory("0R" * 40)
    with manifest_of(device, tmp_path / "manifest") as manifest:
        for index in range(0, 80, 2):
            device.write_at(index * MIB, b"x")
        proof = prove(device, manifest)
        with pytest.raises(IntegrityError, match="at least") as caught:
            proof.finish()
        assert caught.value.metadata["ranges"].count("[") == 16
        # More than 16 MiB and a sixteenth: nobody need read the rest of such a medium.
        assert caught.value.metadata["differing_bytes"] == str(17 * MIB)
        assert proof.offset_bytes < device.size_bytes
        assert proof.differing == ()
