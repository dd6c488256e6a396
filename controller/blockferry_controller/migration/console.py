"""What an instance's console tells of a boot that comes to nothing. Pure.

Rules:
* Only what stands after the last `Linux version` counts: a console keeps what earlier
  boots said.
* A line ends the wait at once only when nothing can follow it: a prompt that waits for a
  person, a panic, the installer's last word. Nobody is there to type.
* Otherwise a console that changes is progress, for hours; one that does not is none.

Sources: the kernel's panic(); initramfs-tools' `panic` in scripts/functions; dracut's
emergency shell; systemd's emergency.service and rescue.service; GRUB's rescue prompt;
SeaBIOS and OVMF for what cannot be booted; cloud-init's own words (util.py, stages.py).
"""

import re
from dataclasses import dataclass
from typing import Final

from msgspec import Struct

BOOT_FAILED: Final = "BOOT_FAILED"
INSTALL_FAILED: Final = "blockferry: install failed"
WAITS: Final = "blockferry: waits for its controller"
UNMET_SECONDS: Final = 120.0
"""How long an instance may say that it is ready and not be reached. The controller tries
again every two seconds; a security group takes effect within a few."""
STILL_SECONDS: Final = 300.0
"""Longest silence of a console that has spoken: emulated guests say something every half
a minute, an installer every minute."""
_LINE_MAX: Final = 300
_ESCAPES: Final = re.compile(r"\x1b(?:\[[0-9;?]*[ -/]*[@-~]|[@-Z\\-_])|[\x00-\x08\x0b-\x1f\x7f]")
_LAST_BOOT: Final = "Linux version "
_READY: Final = re.compile(r"Cloud-init v\. \S+ finished|" + re.escape(WAITS))
_WORD: Final = re.compile(_READY.pattern + "|blockferry: ")
"""A later line of the installer's takes an earlier one back: it was reached."""

_ENDS: Final = tuple(
    (reason, re.compile(pattern, re.IGNORECASE), advice)
    for reason, pattern, advice in (
        ("AGENT_INSTALL_FAILED", re.escape(INSTALL_FAILED), ""),
        (BOOT_FAILED, r"kernel panic - not syncing", "choose another image or flavor"),
        (
            BOOT_FAILED,
            r"^\(initramfs\)|dropping to a shell!|entering emergency mode\. exit the shell",
            "its root disk was not found: choose another image",
        ),
        (
            BOOT_FAILED,
            r"you are in (?:emergency|rescue) mode|give root password for maintenance",
            "the image does not boot here: choose another",
        ),
        (BOOT_FAILED, r"^\s*grub(?: rescue)?>", "the image does not boot here: choose another"),
        (
            BOOT_FAILED,
            r"no bootable (?:device|option)",
            "the image does not boot here, firmware (hw_firmware_type) may differ: choose another",
        ),
        (
            BOOT_FAILED,
            r"failed to start .*cloud-(?:init|config|final)",
            "cloud-init of the image fails: choose another",
        ),
        (
            BOOT_FAILED,
            r"used fallback datasource|datasource datasourcenone",
            "cloud-init found no config drive: choose another image",
        ),
        (
            BOOT_FAILED,
            r"failed loading yaml blob|unhandled non-multipart.* userdata",
            "cloud-init of the image does not read our user-data: choose a newer one",
        ),
    )
)
"""Reason, what the line has in it, the way out."""


class Ending(Struct, frozen=True):
    """Why a boot comes to nothing.

    Attributes:
        reason: AGENT_INSTALL_FAILED, BOOT_FAILED.
        line: What the console says, one line, without control characters.
        advice: The way out; may be empty.
    """

    reason: str
    line: str
    advice: str


def ending(log: str) -> Ending | None:
    """What ended the last boot in `log`; None when something may still come."""
    for raw in _last_boot(log):
        for reason, pattern, advice in _ENDS:
            found = pattern.search(raw)
            if found is not None:
                said = raw[found.start() :] if reason == "AGENT_INSTALL_FAILED" else raw
                return Ending(reason, said.strip()[:_LINE_MAX], advice)
    return None


@dataclass(slots=True)
class ConsoleWatch:
    """One console, look by look.

    Attributes:
        changed_at: When it last said something new, in seconds of the wait.
        spoken: Whether it ever said anything.
    """

    changed_at: float = 0.0
    spoken: bool = False
    _lines: tuple[str, ...] = ()
    _ready_at: float | None = None
    _ready: str = ""

    def see(self, log: str, waited_seconds: float) -> None:
        """Take in what the console shows now."""
        lines = tuple(_last_boot(log))
        if lines and lines != self._lines:
            self.changed_at, self.spoken, self._lines = waited_seconds, True, lines
        word = next((line for line in reversed(lines) if _WORD.search(line)), "")
        ready = word if _READY.search(word) else ""
        if ready != self._ready:
            self._ready, self._ready_at = ready, waited_seconds

    def ready_for(self, waited_seconds: float) -> float:
        """For how many seconds it has said that it is ready; 0 when it does not."""
        return waited_seconds - self._ready_at if self._ready and self._ready_at is not None else 0

    def begin_anew(self, waited_seconds: float) -> None:
        """Count from now on: there is another way to the instance."""
        self.changed_at = waited_seconds
        self._ready_at = waited_seconds

    def unmet(self, waited_seconds: float) -> str:
        """The line that said it is ready, when that was long ago; else empty."""
        if not self._ready or self._ready_at is None:
            return ""
        late = waited_seconds - self._ready_at >= UNMET_SECONDS
        return self._ready.strip()[:_LINE_MAX] if late else ""

    def gives_up(self, waited_seconds: float, within_seconds: float) -> bool:
        """Whether there was no progress for too long."""
        limit = min(within_seconds, STILL_SECONDS) if self.spoken else within_seconds
        return waited_seconds - self.changed_at >= limit


def _last_boot(log: str) -> list[str]:
    clean = _ESCAPES.sub("", log.replace("\r", "\n"))
    begin = max(clean.rfind(_LAST_BOOT), 0)
    return [line for line in clean[begin:].split("\n") if line.strip()]
