"""The instance behind a server, as the host sees it: a disk, a process, plugs for volumes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True)
class GuestSpec:
    """What an instance is made of.

    Attributes:
        user_data: As the client gave it, decoded from base64.
        properties: Of the image: `os_distro`, `os_version`, `blockferry_agent`.
    """

    server_id: str
    name: str
    user_data: bytes
    properties: Mapping[str, str] = field(default_factory=dict)


class Guest:
    """One instance."""

    def __init__(self, directory: Path, spec: GuestSpec) -> None:
        self.directory = directory
        self.spec = spec

    def make_disk(self) -> None: ...
    def start(self, on_end: Callable[[], None]) -> None: ...
    def console(self, lines: int | None) -> str:
        return ""

    def press_power_button(self) -> None: ...
    def begin_kill(self) -> None: ...
    def remove(self, *, keep_disk: bool = False) -> None: ...
    def plug(self, volume_id: str, device: str, path: Path) -> None: ...
    def unplug(self, volume_id: str) -> None: ...
