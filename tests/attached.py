"""Files that a process on this machine finds as attached volumes, by their ids.

In a mount namespace of the process's own: the machine's /dev stays as it is.
"""

import os
import subprocess
from pathlib import Path
from typing import Final

_SERIAL_CHARACTERS: Final = 20
_ENTER: Final = """
mount -t overlay overlay -o lowerdir=/dev,upperdir="$0/upper",workdir="$0/work" /dev &&
mount --bind "$0/disk" /dev/disk && exec "$@"
"""


class AttachedFiles:
    """What is in `/dev/disk/by-id` of a process that `within` precedes."""

    def __init__(self, directory: Path) -> None:
        """Prepare below `directory`, which does not exist yet."""
        for name in ("upper/disk", "work", "disk/by-id"):
            (directory / name).mkdir(parents=True)
        self._by_id = directory / "disk" / "by-id"
        self.within = ("unshare", "--mount", "sh", "-c", _ENTER, str(directory))

    @property
    def works(self) -> bool:
        """Whether this machine lets us; it takes root, and a /dev that overlayfs takes."""
        if os.geteuid() != 0:
            return False
        command = [*self.within, "test", "-d", "/dev/disk/by-id"]
        return subprocess.run(command, capture_output=True, timeout=30, check=False).returncode == 0

    def attach(self, path: Path, volume_id: str) -> None:
        """Show `path` as the disk of that volume."""
        (self._by_id / f"virtio-{volume_id[:_SERIAL_CHARACTERS]}").symlink_to(path)
