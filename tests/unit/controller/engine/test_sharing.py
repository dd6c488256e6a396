"""SQLite where several hosts can open it: refused, whatever way it came to be there."""

from pathlib import Path

import pytest

from blockferry.errors import PreconditionError
from blockferry_controller.engine import sharing
from blockferry_controller.engine.lease import Holder
from blockferry_controller.engine.sharing import is_network, mount_of, refuse_hosts, refuse_network
from blockferry_controller.engine.state import StateStore
from blockferry_controller.spec import Endpoint, Kind, Spec


@pytest.mark.parametrize(
    ("kind", "network"),
    [
        ("nfs", True), ("nfs4", True), ("cifs", True), ("smb3", True), ("ceph", True), ("9p", True),
        ("virtiofs", True), ("lustre", True), ("glusterfs", True), ("gfs2", True), ("ocfs2", True),
        ("fuse.sshfs", True), ("fuse.glusterfs", True), ("fuse.ceph", True),
        ("fuse.s3fs", True), ("fuse.ceph-fuse", True), ("fuse.rclone", True), ("afs", True),
        ("ext4", False), ("xfs", False), ("btrfs", False), ("zfs", False), ("tmpfs", False),
        ("overlay", False), ("fuseblk", False), ("fuse.ntfs-3g", False), ("fuse", False),
        ("fuse.fuse-overlayfs", False), ("", False),
    ],
)  # fmt: skip
def test_kinds(kind: str, network: bool) -> None:
    assert is_network(kind) is network


MOUNTS = [
    "22 1 8:1 / / rw - ext4 /dev/sda1 rw",
    "30 22 0:40 / /home rw,nosuid shared:1 - nfs4 filer:/home rw",
    "31 30 8:2 / /home/ann/local rw - xfs /dev/sdb rw",
    r"32 22 0:41 / /mnt/with\040space rw - fuse.sshfs ann@far:/ rw",
    "33 22 0:42 / /over rw - nfs filer:/over rw",
    "34 33 0:43 / /over rw - tmpfs tmpfs rw",
    "damaged",
]


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/var/lib/state.db", "ext4"),
        ("/home/ann/.local/state/state.db", "nfs4"),
        ("/home/ann/local/state.db", "xfs"),
        ("/homely/state.db", "ext4"),
        ("/mnt/with space/state.db", "fuse.sshfs"),
        ("/over/state.db", "tmpfs"),
    ],
)
def test_the_file_system_of_a_path(path: str, kind: str) -> None:
    assert mount_of(Path(path), MOUNTS)[1] == kind


def test_a_network_file_system_is_refused_with_the_way_out(tmp_path: Path) -> None:
    (tmp_path / "mountinfo").write_text("\n".join(MOUNTS))
    refuse_network(Path("/var/state.db"), tmp_path / "mountinfo")
    refuse_network(Path("/home/state.db"), tmp_path / "nothing")
    with pytest.raises(PreconditionError, match=r"nfs4 at /home.*postgresql://") as raised:
        refuse_network(Path("/home/ann/state.db"), tmp_path / "mountinfo")
    assert raised.value.reason == "STATE_SHARED"


def test_it_is_asked_whenever_a_file_is_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sharing, "is_network", lambda kind: True)
    with pytest.raises(PreconditionError, match="other hosts may write to"):
        StateStore.open(f"sqlite:///{tmp_path}/state.db")
    assert not (tmp_path / "state.db").exists()


@pytest.mark.parametrize(
    ("other", "refused"),
    [
        pytest.param("far-22222222", True, id="another host"),
        pytest.param("here-22222222", False, id="this host before it booted"),
        pytest.param("pod-7-11111111", False, id="a container of this kernel"),
        pytest.param("here-11111111", False, id="this host"),
    ],
)
def test_hosts(other: str, refused: bool) -> None:
    if not refused:
        refuse_hosts(Path("state.db"), [other], "here-11111111")
        return
    with pytest.raises(PreconditionError, match="in use by a process on host far"):
        refuse_hosts(Path("state.db"), [other], "here-11111111")


def test_a_live_lease_of_another_host_gives_it_away(store: StateStore) -> None:
    store.create("m-1", Spec(Kind.COPY, Endpoint("a", "x"), Endpoint("b")), "a/x", "b/x")
    far = Holder("far-00000000", 1, "1", "n")
    store.acquire("m-1", far)
    if store.database.dialect.name != "sqlite":
        StateStore.open(store.url).close()
        return
    with pytest.raises(PreconditionError, match="on host far"):
        StateStore.open(store.url)
    store.release("m-1", far)
    StateStore.open(store.url).close()
