"""One try at telling a hook one event."""

import json
import os
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeAlias

from blockferry.errors import PreconditionError
from blockferry_controller.engine.history import Entry
from blockferry_controller.fleet.spec import Hook


class UndeliveredError(Exception):
    """A try failed; the text says why, and holds nothing secret. May be tried again."""


Send: TypeAlias = Callable[[Hook, Entry, float], None]
"""Tells `hook` an event within so many seconds.

Raises:
    UndeliveredError: it does not know it now, as far as we can tell.
"""


def body(entry: Entry) -> bytes:
    """The event as a hook gets it: one line of JSON, always the same for the same event."""
    return json.dumps(entry.document(), separators=(",", ":")).encode("ascii")


def send(hook: Hook, entry: Entry, seconds: float) -> None:
    """See Send: by command or by web, as the hook says."""
    if hook.command:
        from blockferry_controller.fleet.hooks.command import run  # noqa: PLC0415 - or the other

        run(hook, entry, seconds)
    else:
        from blockferry_controller.fleet.hooks.webhook import post  # noqa: PLC0415

        post(hook, entry, seconds)


def check(hooks: Sequence[Hook]) -> None:
    """Refuse what cannot work, before a fleet is begun.

    Raises:
        PreconditionError: HOOK_UNUSABLE, no such command, or no secret to read.
    """
    for hook in hooks:
        if hook.command and shutil.which(hook.command[0]) is None:
            said = f"there is no command {hook.command[0]}, or it may not be run"
        elif hook.secret_file and not os.access(Path(hook.secret_file).expanduser(), os.R_OK):
            said = f"its secret_file {hook.secret_file} cannot be read"
        else:
            continue
        raise PreconditionError("HOOK_UNUSABLE", f"hook {hook.name}: {said}", hook=hook.name)
