"""Tells a command an event, on its standard input.

Rules:
* No shell: the words of the file are the words of the command.
* It gets an environment of a few harmless names. Credentials of clouds and options of ours
  are none of its business: what it needs, it must have from elsewhere.
* It has a session of its own, and what takes too long is killed with its whole group.
"""

import os
import signal
import subprocess
from contextlib import suppress

from blockferry_controller.engine.history import Entry
from blockferry_controller.fleet.hooks.sending import UndeliveredError, body
from blockferry_controller.fleet.spec import Hook

_KEPT = frozenset({"PATH", "HOME", "USER", "LOGNAME", "LANG", "LANGUAGE", "TZ", "TMPDIR"})


def run(hook: Hook, entry: Entry, seconds: float) -> None:
    """See sending.Send: delivered when the command exits with 0.

    Raises:
        UndeliveredError: it could not be begun, was not ready in time, or exits otherwise.
    """
    try:
        process = subprocess.Popen(
            hook.command,
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env=_environment(entry),
            start_new_session=True,
        )
    except OSError as error:
        raise UndeliveredError(f"{hook.command[0]}: {error.strerror or error}") from None
    with process:
        try:
            process.communicate(body(entry) + b"\n", timeout=seconds)
        except subprocess.TimeoutExpired:
            _kill(process)
            raise UndeliveredError(f"not ready after {seconds:.3g} s, and killed") from None
        except BaseException:
            _kill(process)
            raise
    if process.returncode:
        raise UndeliveredError(f"exit code {process.returncode}")


def _kill(process: "subprocess.Popen[bytes]") -> None:
    """The group has the id of its first process, which is not waited for yet: it is ours."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


def _environment(entry: Entry) -> dict[str, str]:
    kept = {
        name: value for name, value in os.environ.items() if name in _KEPT or name.startswith("LC_")
    }
    return {**kept, "BLOCKFERRY_EVENT": entry.event, "BLOCKFERRY_EVENT_FLEET": entry.fleet}
