"""The controllers of a run: started, measured, stopped, and what they said."""

import os
import signal
import subprocess
import sys
from pathlib import Path

STOP_SECONDS = 90.0
"""A worker that is to stop undoes what it moves."""
_SAID_BYTES = 3000


class Controllers:
    """Processes of `tests.scale.controller` by the name of their part.

    Args:
        directory: Has a log of each.
        socket: Where the world is called.
    """

    def __init__(self, directory: Path, socket: Path) -> None:
        self._directory, self._socket = directory, socket
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self.peak_bytes: dict[str, int] = {}
        """Resident memory of each at most, as the kernel counts it."""
        self.cpu_seconds: dict[str, float] = {}

    def start(self, name: str, url: str, *command: str) -> "subprocess.Popen[bytes]":
        """Run a command of `blockferry` on a state."""
        module = [sys.executable, "-m", "tests.scale.controller", str(self._socket)]
        with self._log(name).open("wb") as log:
            process = subprocess.Popen([*module, "--state", url, *command], stdout=log, stderr=log)
        self._processes[name] = process
        return process

    def look(self) -> None:
        """Measure those that run; as often as may be, for what has ended tells nothing."""
        for name, process in self._processes.items():
            if process.poll() is None:
                self._measure(name, Path(f"/proc/{process.pid}"))

    def _measure(self, name: str, proc: Path) -> None:
        try:
            status = (proc / "status").read_text(encoding="ascii", errors="replace")
            stat = (proc / "stat").read_text(encoding="ascii", errors="replace")
        except OSError:
            return
        for line in status.splitlines():
            if line.startswith("VmHWM:"):
                self.peak_bytes[name] = int(line.split()[1]) << 10
        user, system = stat.rpartition(")")[2].split()[11:13]
        self.cpu_seconds[name] = (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")

    def stop(self) -> None:
        """Have those that run stop in order.

        Raises:
            subprocess.TimeoutExpired: One did not.
        """
        self.look()
        for process in self._processes.values():
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
        for process in self._processes.values():
            process.wait(STOP_SECONDS)

    def said(self, name: str) -> str:
        """The end of its log."""
        return self._log(name).read_bytes()[-_SAID_BYTES:].decode("utf-8", "replace")

    def close(self) -> None:
        """None is left."""
        for process in self._processes.values():
            if process.poll() is None:
                process.kill()
            process.wait()

    def _log(self, name: str) -> Path:
        return self._directory / f"{name}.log"
