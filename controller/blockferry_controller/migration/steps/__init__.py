"""The steps of a migration, one module each, in the order in which they run.

A step has `do`, which looks for what is there already before it makes anything,
and `undo`, which removes it again and takes what is gone for success. Both may
be repeated at any time.
"""

from collections.abc import Sequence
from typing import Final, Protocol

from blockferry_controller.migration.context import Context
from blockferry_controller.migration.steps.attach import AttachVolumes
from blockferry_controller.migration.steps.compare import CompareVolumes
from blockferry_controller.migration.steps.connect import ConnectPair
from blockferry_controller.migration.steps.copy import CopyBytes
from blockferry_controller.migration.steps.finish import DeleteInstances, DetachVolumes, HandOver
from blockferry_controller.migration.steps.instances import BootInstances
from blockferry_controller.migration.steps.keys import MakeAuthority
from blockferry_controller.migration.steps.preflight import Preflight
from blockferry_controller.migration.steps.probe import ProbePair
from blockferry_controller.migration.steps.proof import ProveCopy
from blockferry_controller.migration.steps.reach import ReachAgents
from blockferry_controller.migration.steps.volume import MakeVolume


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


STEPS: Final[Sequence[Step]] = (
    Preflight(),
    MakeAuthority(),
    MakeVolume(),
    BootInstances(),
    AttachVolumes(),
    ReachAgents(),
    ConnectPair(),
    ProbePair(),
    CopyBytes(),
    ProveCopy(),
    DetachVolumes(),
    DeleteInstances(),
    CompareVolumes(),
    HandOver(),
)
