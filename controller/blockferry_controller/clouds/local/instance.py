"""An agent process of this machine, in a directory of its own: `copy`'s temp instance.

Like a real instance it acts on its user-data: the files for /etc/blockferry go
into its own `etc`. Unlike one it ends when its controller does, so that a
crashed `copy` leaves nothing running.
"""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path, PurePosixPath
from typing import Final

from blockferry_controller.delivery.user_data import read_user_data

ETC: Final = PurePosixPath("/etc/blockferry")
STOP_SECONDS: Final = 15.0


class LocalInstance:
    """The process that lives in `directory`, whoever started it."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._config = directory / "etc" / "agent.json"
        self._pid_file = directory / "pid"
        self._log = directory / "console.log"

    def start(self, user_data: bytes) -> None:
        """Start the agent; one that an earlier controller left is ended first."""
        self.stop()
        self._write_files(user_data)
        command = [sys.executable, "-m", "blockferry_agent", "serve", "--config", str(self._config)]
        with self._log.open("ab") as log:
            # A session of its own: Ctrl-C in the terminal is for the controller,
            # which stops its agents in order.
            child = subprocess.Popen(
                command, cwd=self._directory, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                start_new_session=True,
            )  # fmt: skip
        _children[child.pid] = child
        self._pid_file.write_text(str(child.pid), encoding="ascii")

    def running(self) -> bool:
        """Whether the process lives."""
        pid = self._pid()
        return pid is not None and self._is_ours(pid)

    def end_orphan(self) -> None:
        """End a process that an earlier controller started: it is about to end anyway.

        Until it has, it would pass for a running one and hold its address.
        """
        if self._pid() not in _children:
            self.stop()

    def stop(self) -> None:
        """End the process in order, then by force. Idempotent."""
        pid = self._pid()
        if pid is not None and self._is_ours(pid):
            for number, patience in ((signal.SIGTERM, STOP_SECONDS), (signal.SIGKILL, 5.0)):
                try:
                    os.kill(pid, number)
                except ProcessLookupError:
                    break
                if self._wait(pid, patience):
                    break
        self._pid_file.unlink(missing_ok=True)

    def console(self) -> str:
        """What the process has said."""
        try:
            return self._log.read_text(encoding="utf-8", errors="replace")
        except OSError:
            return ""

    def _write_files(self, user_data: bytes) -> None:
        for name, (content, mode) in read_user_data(user_data).items():
            path = PurePosixPath(name)
            if path.parent == ETC:
                self._write(self._directory / "etc" / path.name, content, mode)
        config = json.loads(self._config.read_bytes())
        config |= {"state_directory": str(self._directory / "state"), "exit_with_parent": True} | {
            "parent_pid": os.getpid()
        }
        # Whatever user-data says: the machine is the user's own.
        config["power_off"] = False
        self._write(self._config, json.dumps(config).encode(), 0o600)

    def _write(self, path: Path, content: bytes, mode: int) -> None:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        path.unlink(missing_ok=True)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)

    def _pid(self) -> int | None:
        try:
            return int(self._pid_file.read_text(encoding="ascii"))
        except (OSError, ValueError):
            return None

    def _is_ours(self, pid: int) -> bool:
        """Pids are used again: only a process with our configuration counts."""
        if (child := _children.get(pid)) is not None and child.poll() is not None:
            return False
        try:
            command = Path(f"/proc/{pid}/cmdline").read_bytes()
        except OSError:
            return False
        return os.fsencode(self._config) in command

    def _wait(self, pid: int, seconds: float) -> bool:
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            if not self._is_ours(pid):
                return True
            time.sleep(0.02)
        return False


_children: Final[dict[int, "subprocess.Popen[bytes]"]] = {}
"""Children of this process, to reap them."""
