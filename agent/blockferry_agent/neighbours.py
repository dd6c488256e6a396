"""The agents of one instance, which only together may power it off.

Each keeps a file in a directory that all share: when, on the kernel's monotonic clock, it was
last needed. Processes of one boot have that clock in common, and the directory, which is in
memory, ends with the boot. An agent that has never run, or has died, has nothing to say: it
needs the instance no more than one that nobody speaks to.
"""

import contextlib
import logging
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from blockferry_agent.ports import Clock

_log = logging.getLogger(__name__)
_SUFFIX: Final = ".needed"


class Neighbours:
    """The others of this instance. Not thread-safe.

    Args:
        directory: The one that all share; None: there are no others.
        own: What tells this agent from the others, a plain file name.
        clock: Whose monotonic time all processes of the machine share.
        every_seconds: How old what was told may get before it is told anew.
    """

    def __init__(
        self, directory: Path | None, own: str, clock: Clock, *, every_seconds: float
    ) -> None:
        self._directory, self._own, self._clock = directory, own + _SUFFIX, clock
        self._every_seconds = every_seconds
        self._told_at = -math.inf

    def tell(self, silent_seconds: float) -> None:
        """Let the others know for how long nobody has needed this agent; cheap when often."""
        now = self._clock.monotonic()
        if self._directory is None or now - self._told_at < self._every_seconds:
            return
        self._told_at = now
        fresh = self._directory / f"{self._own}.new"
        try:
            self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            fresh.write_text(repr(now - silent_seconds), encoding="ascii")
            fresh.replace(self._directory / self._own)
        except OSError as error:
            _log.warning("the other agents cannot be told that this one is needed: %s", error)

    def silent_seconds(self) -> float:
        """For how long none of the others has been needed; infinite without any."""
        last = max(self._needed_at(), default=-math.inf)
        return self._clock.monotonic() - last

    def _needed_at(self) -> Iterator[float]:
        if self._directory is None:
            return
        with contextlib.suppress(OSError):
            for path in self._directory.iterdir():
                if path.suffix == _SUFFIX and path.name != self._own:
                    # One that was half written, or that is not ours, says nothing.
                    with contextlib.suppress(OSError, ValueError):
                        yield float(path.read_text(encoding="ascii"))
