"""A cloud for one who may lose the right to change it at any moment.

A controller that was cut off may wait between two lines of a step, or repeat a call through an
outage, until others have brought the migration to its end: what it made then nobody would look
for, and what it deleted might be theirs. So its fence is asked before each verb, and again
before each single request that changes something.
"""

from collections.abc import Callable
from contextvars import ContextVar
from functools import wraps
from typing import Any, Final, TypeAlias, cast

from blockferry_controller.clouds.port import Cloud

Fence: TypeAlias = Callable[[], None]
"""Raises when its owner may touch nothing any more. Asked often: it must cost nothing."""


def _open() -> None:
    """Of what belongs to nobody's attempt: `cleanup`, `plan`, a pool's housekeeping."""


_FENCE: Final[ContextVar[Fence]] = ContextVar("fence", default=_open)


def fenced(cloud: Cloud, fence: Fence) -> Cloud:
    """The same cloud, behind `fence`. Thread-safe as it is itself."""
    return cast("Cloud", _Fenced(cloud, fence))


def ask() -> None:
    """Raise what the fence raises that this verb was called behind.

    For implementations that repeat requests: before each that changes something.
    """
    _FENCE.get()()


class _Fenced:
    """See the module."""

    def __init__(self, cloud: Cloud, fence: Fence) -> None:
        self._cloud, self._fence = cloud, fence

    def __getattr__(self, name: str) -> Any:
        verb = getattr(self._cloud, name)
        if not callable(verb):
            return verb

        @wraps(verb)
        def behind(*arguments: Any, **named: Any) -> Any:
            self._fence()
            token = _FENCE.set(self._fence)
            try:
                return verb(*arguments, **named)
            finally:
                _FENCE.reset(token)

        return behind
