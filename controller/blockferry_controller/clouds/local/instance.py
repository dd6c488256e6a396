"""An agent process of this machine, in a directory of its own: `copy`'s temp instance.

Like a real instance it acts on its user-data: the files of the agent go into its
own `etc`. Unlike one it ends when its controller does, so that a
crashed `copy` leaves nothing running.
"""

import json
import os
import select
import signal
from pathlib import Path, PurePosixPath
from typing import Final

from blockferry_controller.clouds.local.fork_server import FORK_SERVER
from blockferry_controller.delivery.user_data import agent_directory, read_user_data

ETC: Final = PurePosixPath(agent_directory(0))
"""A copy has one agent an instance."""
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
        pid = FORK_SERVER.fork(self._config, self._directory, self._log)
        _started.add(pid)
        self._pid_file.write_text(str(pid), encoding="ascii")

    def running(self) -> bool:
        """Whether the process lives."""
        pid = self._pid()
        return pid is not None and self._is_ours(pid)

    def end_orphan(self) -> None:
        """End a process that an earlier controller started: it is about to end anyway.

        Until it has, it would pass for a running one and hold its address.
        """
        if self._pid() not in _started:
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
        config |= {
            "state_directory": str(self._directory / "state"),
            "run_directory": str(self._directory / "run"),
            "exit_with_parent": True,
            "parent_pid": FORK_SERVER.start(),
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
        """Pids are used again: only a process that works in our directory counts."""
        try:
            return self._directory.samefile(f"/proc/{pid}/cwd")
        except OSError:
            return False

    def _wait(self, pid: int, seconds: float) -> bool:
        """Whether the process has ended before so many seconds were over."""
        try:
            process = os.pidfd_open(pid)
        except ProcessLookupError:
            return True
        poller = select.poll()
        poller.register(process, select.POLLIN)
        try:
            # What it was opened for may have been another one, with the same pid.
            return not self._is_ours(pid) or bool(poller.poll(seconds * 1000))
        finally:
            os.close(process)


_started: Final[set[int]] = set()
"""Pids of agents that this process has started."""
