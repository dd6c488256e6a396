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

from blockferry.errors import BlockferryError
from blockferry_controller.clouds.port import Cloud

Fence: TypeAlias = Callable[[], None]
"""Raises when its owner may touch nothing any more. Asked often: it must cost nothing."""


def _open() -> None:
    """Of what belongs to nobody's attempt: `cleanup`, `plan`, a pool's housekeeping."""


_FENCE: Final[ContextVar[Fence]] = ContextVar("fence", default=_open)


def fenced(cloud: Cloud, fence: Fence) -> Cloud:
    """The same cloud, behind `fence`. Thread-safe as it is itself."""
    return cast("Cloud", _Fenced(cloud, fence))


class _ClosedError(Exception):
    """No error of ours: an adapter on the way out might take one for the cloud's answer."""

    def __init__(self, said: BlockferryError) -> None:
        super().__init__(said)
        self.said = said


def ask() -> None:
    """End the verb that was called from behind a fence with what that says, if it is closed.

    For implementations that repeat requests: before each that changes something.
    """
    try:
        _FENCE.get()()
    except BlockferryError as error:
        raise _ClosedError(error) from error


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
            except _ClosedError as closed:
                raise closed.said from None
            finally:
                _FENCE.reset(token)

        return behind
