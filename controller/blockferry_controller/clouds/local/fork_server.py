"""The process that this one's agents are forks of; see `blockferry-agent fork-server`.

Loads little itself: a command that knows that it will need agents starts the server
first and loads the rest beside it.
"""

import atexit
import json
import select
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any, Final

from blockferry.errors import UnreachableError

_ANSWER_SECONDS: Final = 30.0
"""Loading takes 0.2 s on an idle machine."""
_END_SECONDS: Final = 5.0


class ForkServer:
    """Started by the first that needs it, ended with this process. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> int:
        """Have it load; returns at once, its pid. Idempotent."""
        with self._lock:
            return self._started().pid

    def fork(self, config: Path, directory: Path, log: Path) -> int:
        """Start an agent.

        Args:
            config: Of the agent.
            directory: Its working directory.
            log: Where what it says is appended.

        Returns:
            Its pid.

        Raises:
            UnreachableError: AGENT_NOT_STARTED.
        """
        order = {"config": str(config), "directory": str(directory), "log": str(log)}
        with self._lock:
            try:
                answer = _ask(self._started(), order)
            except (OSError, ValueError) as error:
                # Whatever it may still answer would be taken for that to the next order.
                self._end()
                raise _not_started(str(error)) from error
        if "error" in answer:
            raise _not_started(answer["error"])
        return int(answer["pid"])

    def close(self) -> None:
        """End it, and with it what agents are left."""
        with self._lock:
            self._end()

    def _started(self) -> "subprocess.Popen[bytes]":
        if self._process is not None and self._process.poll() is not None:
            self._end()
        if self._process is None:
            # A session of its own: Ctrl-C in the terminal is for this process.
            self._process = subprocess.Popen(
                [sys.executable, "-m", "blockferry_agent", "fork-server"],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True,
            )  # fmt: skip
        return self._process

    def _end(self) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        with process:
            assert process.stdin is not None
            process.stdin.close()
            try:
                process.wait(_END_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()


def _ask(process: "subprocess.Popen[bytes]", order: dict[str, str]) -> dict[str, Any]:
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(json.dumps(order).encode() + b"\n")
    process.stdin.flush()
    if not select.select([process.stdout], [], [], _ANSWER_SECONDS)[0]:
        raise TimeoutError(f"nothing was answered within {_ANSWER_SECONDS:.0f} s")
    answer = process.stdout.readline()
    if not answer:
        raise ValueError("the fork server has ended")
    return dict(json.loads(answer))


def _not_started(why: str) -> UnreachableError:
    return UnreachableError(
        "AGENT_NOT_STARTED", f"no agent could be started on this machine: {why}"
    )


FORK_SERVER: Final = ForkServer()
"""Of this process."""
atexit.register(FORK_SERVER.close)
