"""`blockferry-agent fork-server`: agents as forks of one process that has loaded everything.

For `copy`, whose agents are processes of one machine: what an agent loads, gRPC above
all, costs 0.2 s of CPU, a fork of a process that has loaded it a few milliseconds.
Started before anybody knows what its agents are to do, it loads while its controller does.

Rules:
* A line of JSON on standard input is an order, a line on standard output its answer.
  The end of standard input is the server's, which its agents notice as their parent's.
* No thread and no channel is made here: gRPC does not survive a fork once it has begun.
* Agents stay in the server's session. It is not the terminal's, whose Ctrl-C is for the
  controller. And it is one: Linux shares processors out between sessions first
  (sched_autogroup), and a pair that hands chunks over in two took 6 % longer for a copy.
* What an agent ends with is nobody's business here: it is only reaped.
"""

import gc
import json
import os
import signal
import sys
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import FrameType


@dataclass(frozen=True, slots=True)
class Order:
    """An agent that is to be made.

    Attributes:
        config: Its configuration file.
        directory: Where it works; what tells it from other forks.
        log: What it says is appended there.
    """

    config: Path
    directory: Path
    log: Path

    @classmethod
    def read(cls, line: bytes) -> "Order":
        """Raises ValueError or KeyError for what is no order."""
        values = json.loads(line)
        return cls(*(Path(values[name]) for name in ("config", "directory", "log")))


def await_fork() -> Path | None:
    """Load an agent's modules and serve orders.

    Returns:
        In each fork, the configuration to serve; in the server, None at its end.
    """
    # For the forks: this process itself needs nothing of it.
    import blockferry_agent.server  # noqa: F401, PLC0415

    # What is loaded is never garbage, and looking through it would unshare its pages.
    gc.freeze()
    signal.signal(signal.SIGCHLD, _reap)
    for line in sys.stdin.buffer:
        try:
            order = Order.read(line)
            pid = _fork(order)
        except (OSError, ValueError, KeyError, TypeError) as error:
            _answer({"error": str(error) or type(error).__name__})
            continue
        if pid == 0:
            return order.config
        _answer({"pid": pid})
    return None


def _fork(order: Order) -> int:
    """The new agent's pid; in the agent, 0. What can go wrong does before there is one."""
    home = Path.cwd()
    log = os.open(order.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    try:
        # Before the fork: an agent is known by its directory from its first moment.
        os.chdir(order.directory)
        pid = os.fork()
        if pid == 0:
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            nothing = os.open(os.devnull, os.O_RDONLY)
            os.dup2(nothing, 0)
            os.dup2(log, 1)
            os.dup2(log, 2)
            os.close(nothing)
        else:
            os.chdir(home)
        return pid
    finally:
        os.close(log)


def _reap(number: int, frame: FrameType | None) -> None:
    del number, frame
    with suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass


def _answer(values: dict[str, object]) -> None:
    sys.stdout.write(json.dumps(values) + "\n")
    sys.stdout.flush()
