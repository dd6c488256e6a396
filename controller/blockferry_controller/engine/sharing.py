"""Where an SQLite database may not be: what several hosts can open.

Rules:
* SQLite's locks and its write-ahead log hold between processes of one kernel only
  (https://www.sqlite.org/wal.html: "WAL does not work over a network filesystem"). Two
  hosts would each see themselves alone, and drive one migration twice.
* A file system is known by its name in mountinfo, not by the number of statfs(2): all of
  FUSE has one number, sshfs as well as what is local.
* Between hosts that share a disk in another way, a live lease of a process of another boot
  and another name gives it away. Containers of one kernel have one boot: they may share.
"""

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from blockferry.errors import PreconditionError

NETWORK: Final = frozenset(
    {
        "9p", "acfs", "afs", "beegfs", "ceph", "cifs", "coda", "fhgfs", "gfs", "gfs2", "glusterfs",
        "gpfs", "lustre", "mmfs", "ncpfs", "nfs", "nfs4", "ocfs2", "orangefs", "panfs", "pvfs2",
        "prl_fs", "smb2", "smb3", "smbfs", "vboxsf", "virtiofs", "vmhgfs",
    }
)  # fmt: skip
"""Names of file systems, without what FUSE puts before them, that other hosts may write to."""
FUSE: Final = frozenset(
    {
        "blobfuse", "blobfuse2", "ceph", "ceph-fuse", "davfs", "davfs2", "gcsfuse", "glusterfs",
        "goofys", "juicefs", "mfs", "moosefs", "rclone", "s3fs", "seaweedfs", "sshfs",
        "vmhgfs-fuse",
    }
)  # fmt: skip
"""The same, of those that are programs: `fuse.sshfs`."""
_OCTAL: Final = re.compile(r"\\([0-7]{3})")


def is_network(kind: str) -> bool:
    """Whether a file system of this name, as mountinfo has it, may be another host's, too."""
    name = kind.lower()
    family, _, program = name.partition(".")
    if family in ("fuse", "fuseblk"):
        return program in FUSE or program in NETWORK
    return name in NETWORK


def refuse_network(path: Path, mountinfo: Path = Path("/proc/self/mountinfo")) -> None:
    """Refuse a database file that is to be on a network file system.

    Args:
        path: Of the file; it need not be there.
        mountinfo: As proc(5) describes it; where it cannot be read, nothing is refused.

    Raises:
        PreconditionError: STATE_SHARED.
    """
    try:
        lines = mountinfo.read_text(encoding="utf-8", errors="surrogateescape").splitlines()
    except OSError:
        return
    point, kind = mount_of(path.resolve(), lines)
    if is_network(kind):
        raise PreconditionError(
            "STATE_SHARED",
            f"the state {path} is on a file system that other hosts may write to ({kind} at "
            f"{point}), where SQLite's locks do not hold: keep it on a local disk (--state "
            "sqlite:////var/lib/blockferry/state.db), or give several hosts one PostgreSQL "
            "(--state postgresql://user@host/database)",
            path=str(path),
            filesystem=kind,
        )


def mount_of(path: Path, mountinfo: Iterable[str]) -> tuple[str, str]:
    """Mount point and kind of the file system that a resolved path is on.

    `36 35 98:0 /root /point opts … - fstype source superopts` is a line of mountinfo; of
    two on one point the later hides the earlier.
    """
    found = ("/", "")
    for line in mountinfo:
        before, _, after = line.partition(" - ")
        fields, kind = before.split(), after.split()
        if len(fields) < 5 or not kind:
            continue
        point = _OCTAL.sub(lambda octal: chr(int(octal[1], 8)), fields[4])
        if path.is_relative_to(point) and len(point) >= len(found[0]):
            found = (point, kind[0])
    return found


def refuse_hosts(path: Path, holders: Iterable[str], here: str) -> None:
    """Refuse a database file that a process of another host uses right now.

    Args:
        path: Of the file.
        holders: Hosts, as in lease.Holder, that have a lease on something in it.
        here: This host, likewise.

    Raises:
        PreconditionError: STATE_SHARED.
    """
    name, _, boot = here.rpartition("-")
    for host in holders:
        other, _, its_boot = host.rpartition("-")
        if its_boot != boot and other != name:
            raise PreconditionError(
                "STATE_SHARED",
                f"the state {path} is in use by a process on host {other}, and SQLite's locks do "
                "not hold between hosts: give several hosts one PostgreSQL (--state "
                "postgresql://user@host/database)",
                path=str(path),
                host=other,
            )
