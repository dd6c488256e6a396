"""The steps of a migration, one module each, in the order in which they run.

A step has `do`, which looks for what is there already before it makes anything,
and `undo`, which removes it again and takes what is gone for success. Both may
be repeated at any time. From the first attachment to the proof a step is
`Recovering`: an instance that is lost then is replaced, and the step goes on.
"""

from collections.abc import Sequence
from typing import Final

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
from blockferry_controller.migration.steps.recover import Recovering
from blockferry_controller.migration.steps.step import Step
from blockferry_controller.migration.steps.volume import MakeVolume

__all__ = ["STEPS", "Step"]

STEPS: Final[Sequence[Step]] = (
    Preflight(),
    MakeAuthority(),
    MakeVolume(),
    BootInstances(),
    Recovering(AttachVolumes()),
    Recovering(ReachAgents()),
    Recovering(ConnectPair()),
    Recovering(ProbePair()),
    Recovering(CopyBytes()),
    Recovering(ProveCopy()),
    DetachVolumes(),
    DeleteInstances(),
    CompareVolumes(),
    HandOver(),
)
