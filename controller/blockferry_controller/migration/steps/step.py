"""What a step is."""

from typing import Protocol

from blockferry_controller.migration.context import Context


class Step(Protocol):
    """One step."""

    @property
    def name(self) -> str:
        """One lower case word or two, shown to people and kept in reports."""
        ...

    def do(self, context: Context) -> str:
        """Do it; returns one line of what was found or made."""
        ...

    def undo(self, context: Context, *, resumable: bool) -> None:
        """Take it back; what resuming needs stays when `resumable`."""
        ...
