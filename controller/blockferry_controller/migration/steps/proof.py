"""Step `proof`: the destination's medium, read again, agrees with the source."""

import contextlib

from blockferry.errors import DeadlineError, IntegrityError, UnreachableError
from blockferry.v1 import agent_pb2
from blockferry_controller.migration.context import Context
from blockferry_controller.migration.pool import measure
from blockferry_controller.migration.steps.copy import watch_jobs
from blockferry_controller.migration.steps.jobs import effort
from blockferry_controller.migration.steps.pair import JobPair
from blockferry_controller.migration.steps.repair import both_ended, repair
from blockferry_controller.spec import Verify


class ProveCopy:
    """Wait for the sink's own verdict and hold it against the source's root."""

    name = "proof"

    def do(self, context: Context) -> str:
        """Fails closed: without a verdict there is no success.

        Raises:
            IntegrityError: READBACK_MISMATCH (the sink's), also after a repair;
                SOURCE_CHANGED, nothing to repair it with; ROOT_MISMATCH, UNPROVEN.
        """
        pair = _read_back(context)
        root = _agreed_root(pair.source, pair.sink)
        if context.spec.transfer.verify is Verify.READBACK and not pair.sink.verified:
            raise IntegrityError(
                "UNPROVEN",
                f"the sink of {context.migration_id} ended without reading the medium back; "
                "the copy is not proven",
            )
        context.remember(
            digest=f"blake3:{root.hex()}",
            verified=pair.sink.verified,
            profile={"source": effort(pair.source), "sink": effort(pair.sink)},
            peak_resident_bytes=_peaks(context),
        )
        measure(context)
        return f"blake3:{root.hex()[:16]}… {'read back' if pair.sink.verified else 'as received'}"

    def undo(self, context: Context, *, resumable: bool) -> None:
        """Nothing was made."""


def _read_back(context: Context) -> JobPair:
    """Both jobs, ended well: at once, or after what differed was sent again."""
    if not context.differing:
        try:
            return watch_jobs(context, both_ended, phase="proof")
        except IntegrityError:
            if not context.differing:
                raise
    repair(context)
    return watch_jobs(context, both_ended, phase="proof")


def _peaks(context: Context) -> dict[str, int]:
    """Of the agents that still answer: the verdict is there, and needs them no more."""
    peaks = {}
    for side in context.sides:
        # One that was lost while the verdict was read has none any more.
        if side.agent is not None:
            with contextlib.suppress(UnreachableError, DeadlineError):
                peaks[side.label] = side.agent.describe().peak_resident_bytes
    return peaks


def _agreed_root(source: agent_pb2.Job, sink: agent_pb2.Job) -> bytes:
    if not source.root_digest or source.root_digest != sink.root_digest:
        raise IntegrityError(
            "ROOT_MISMATCH",
            f"the source's root is {source.root_digest.hex() or 'missing'}, the destination's "
            f"{sink.root_digest.hex() or 'missing'}: the volumes differ",
            source_root=source.root_digest.hex(),
            sink_root=sink.root_digest.hex(),
        )
    return source.root_digest
