"""An instance as the host sees it: a disk, a process, a console, plugs for volumes.

The process is `unshare … python -m tests.sim.guest.init`, in mount, process and
host-name namespaces of its own. Its init is process 1 there: when it ends, the
kernel ends all others. It ends when its standard input does, and so whatever
way the simulator goes, SIGKILL included, no guest stays behind.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from tests.sim.guest import disk
from tests.sim.guest.mounts import Image
from tests.sim.guest.programs import make_programs
from tests.sim.guest.wire import Walls, Wire

CONSOLE_BYTES = 102_400
"""What Nova returns at most (MAX_CONSOLE_BYTES of its libvirt driver)."""
END_SECONDS = 5.0
CHECKOUT = Path(__file__).resolve().parents[3]


@dataclass(frozen=True)
class GuestSpec:
    """What an instance is made of.

    Attributes:
        user_data: As the client gave it, decoded from base64.
        properties: Of the image: `os_distro`, `os_version`, `blockferry_agent`.
        addresses: Of its ports.
        root_device: The disk that it boots from, such as `/dev/vda`, plugged before `start`;
            empty for a disk of its own, made of the image.
        walls: What passes to and from it; None for a network that is the host's.
    """

    server_id: str
    name: str
    user_data: bytes
    properties: Mapping[str, str] = field(default_factory=dict)
    addresses: tuple[str, ...] = ()
    walls: Walls | None = None
    root_device: str = ""


class Guest:
    """One instance. `start` and the ends are called under the cloud's lock.

    Args:
        programs: Directory for what all instances of a cloud share, made when missing.
    """

    def __init__(self, directory: Path, spec: GuestSpec, programs: Path) -> None:
        self.directory = directory
        self.image = Image(spec.properties, programs, CHECKOUT)
        self.spec = spec
        self._root = directory / "root"
        self._dev, self._block = directory / "dev", directory / "sys/block"
        self._plugged = itertools.count(1)
        self._process: subprocess.Popen[bytes] | None = None
        self._ended = threading.Event()

    def make_disk(self) -> None:
        """Make what it boots from, unless that is a volume, and write down what init must know."""
        self._root.mkdir(parents=True)
        make_programs(self.image.programs)
        disk.make_machine(self.directory)
        if not self.spec.root_device:
            disk.make(self._root, self.image)
        (self.directory / "console.log").touch()
        facts = {
            "server_id": self.spec.server_id,
            "name": self.spec.name,
            "properties": dict(self.image.properties),
            "programs": str(self.image.programs),
            "checkout": str(self.image.checkout),
            "root_device": self.spec.root_device.lstrip("/"),
            "outwards": self.spec.walls.outwards if self.spec.walls else [],
        }
        (self.directory / "guest.json").write_text(json.dumps(facts))
        user_data = self.directory / "user-data"
        user_data.touch(mode=0o600)
        user_data.write_bytes(self.spec.user_data)

    def start(self, on_end: Callable[[], None]) -> None:
        """Power on. `on_end` is called in another thread when the guest has ended."""
        self._ended = threading.Event()
        wire = Wire(self.spec.walls, self.spec.addresses) if self.spec.walls else None
        handed = () if wire is None else (wire.theirs.fileno(),)
        init = [sys.executable, "-m", "tests.sim.guest.init", str(self.directory)]
        with (self.directory / "console.log").open("ab") as console:
            self._process = subprocess.Popen(
                [*unshare(*(["--net"] if wire else [])), *init, *map(str, handed)],
                pass_fds=handed,
                stdin=subprocess.PIPE,
                stdout=console,
                stderr=console,
                cwd=CHECKOUT,
                env={"PATH": os.environ.get("PATH", os.defpath), "PYTHONDONTWRITEBYTECODE": "1"},
                start_new_session=True,
            )
        if wire is not None:
            wire.start()
        threading.Thread(
            target=_wait,
            args=(self._process, self._ended, on_end, wire),
            name=f"sim-guest-{self.spec.name[-20:]}",
            daemon=True,
        ).start()

    @property
    def running(self) -> bool:
        """True from `start` until the last process has ended."""
        return self._process is not None and not self._ended.is_set()

    def console(self, lines: int | None) -> str:
        """The console log's last lines, all that Nova would keep for None."""
        with (self.directory / "console.log").open("rb") as log:
            log.seek(max(0, os.fstat(log.fileno()).st_size - CONSOLE_BYTES))
            text = log.read().decode("utf-8", "replace")
        if lines is None or lines < 0:
            return text
        return "".join(text.splitlines(keepends=True)[-lines:]) if lines else ""

    def press_power_button(self) -> None:
        """Ask the guest to shut down."""
        if self._process and self._process.stdin:
            with contextlib.suppress(OSError, ValueError):  # it has ended in the meantime
                self._process.stdin.write(b"poweroff\n")
                self._process.stdin.flush()

    def begin_kill(self) -> None:
        """Pull the plug; returns at once."""
        if self._process and self._process.stdin:
            with contextlib.suppress(OSError):  # unsent bytes to a guest that has ended
                self._process.stdin.close()

    def remove(self, *, keep_disk: bool = False) -> None:
        """Pull the plug, wait until every process has ended, delete the disk."""
        self.begin_kill()
        if self.running and not self._ended.wait(END_SECONDS):
            self._kill()
        self._process = None
        if not keep_disk:
            shutil.rmtree(self.directory, ignore_errors=True)

    def _kill(self) -> None:
        """For an init that does not even see its input end: SIGKILL, and again wait."""
        assert self._process
        pid = self._process.pid
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        for child in children:
            os.kill(int(child), signal.SIGKILL)
        self._ended.wait(END_SECONDS)

    def plug(self, volume_id: str, device: str, path: Path) -> None:
        """Let a volume appear, as virtio-blk: by its serial, its id's first 20 characters."""
        name = Path(device).name
        serial = volume_id[:20]
        node = self._dev / name
        node.unlink(missing_ok=True)
        os.link(path, node)
        link = self._dev / "disk/by-id" / f"virtio-{serial}"
        link.unlink(missing_ok=True)
        link.symlink_to(f"../../{name}")
        # All that sysfs says of a disk is there as soon as the disk is.
        with tempfile.TemporaryDirectory(dir=self.directory) as draft:
            block = Path(draft) / name
            block.mkdir()
            (block / "serial").write_text(serial + "\n")
            (block / "size").write_text(f"{path.stat().st_size // 512}\n")
            (block / "diskseq").write_text(f"{next(self._plugged)}\n")
            shutil.rmtree(self._block / name, ignore_errors=True)
            block.rename(self._block / name)

    def unplug(self, volume_id: str) -> None:
        """Let a volume vanish."""
        link = self._dev / "disk/by-id" / f"virtio-{volume_id[:20]}"
        if not link.is_symlink():
            return
        name = link.readlink().name
        link.unlink()
        (self._dev / name).unlink(missing_ok=True)
        shutil.rmtree(self._block / name, ignore_errors=True)


def unshare(*more: str) -> list[str]:
    """The command that makes the namespaces; without root, a user namespace as well."""
    user = [] if os.geteuid() == 0 else ["--user", "--map-root-user"]
    return ["unshare", *user, "--mount", "--pid", "--uts", *more, "--fork"]


def why_guests_cannot_run() -> str:
    """Empty when this machine lets us make instances, else what `unshare` said."""
    try:
        done = subprocess.run(
            [*unshare(), "mount", "--bind", "/usr", "/usr"],
            capture_output=True,
            text=True,
            timeout=10,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return str(error)
    return "" if done.returncode == 0 else done.stderr.strip() or "unshare failed"


def why_volumes_cannot_be_mounted() -> str:
    """Empty when a guest may mount its volumes here, else the reason."""
    if os.geteuid() != 0:
        return "mounting a volume needs root"
    if not Path("/dev/loop-control").exists():
        return "mounting a volume needs loop devices"
    return why_guests_cannot_run()


def _wait(
    process: subprocess.Popen[bytes],
    ended: threading.Event,
    on_end: Callable[[], None],
    wire: Wire | None,
) -> None:
    process.wait()
    if wire is not None:
        wire.close()
    if process.stdin:
        with contextlib.suppress(OSError):  # unsent bytes
            process.stdin.close()
    ended.set()
    on_end()
