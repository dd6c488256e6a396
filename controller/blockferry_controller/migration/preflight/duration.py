"""How long it will take: assumed before anything is made, measured after boot."""

from blockferry.errors import DeadlineError
from blockferry_controller.migration.context import Context, need
from blockferry_controller.migration.prediction import ASSUMED, predict
from blockferry_controller.migration.preflight.check import Warned
from blockferry_controller.notation import format_duration, format_rate


def assumed(context: Context) -> str | Warned:
    """By the size and rates that nobody has measured: a warning at most."""
    found = predict(ASSUMED, _left(context), context.spec.transfer)
    said = (
        f"about {format_duration(found.seconds)} for copy and proof, assuming that the source "
        f"reads {format_rate(ASSUMED.read_bytes_per_second)}, the link carries "
        f"{format_rate(ASSUMED.link_bytes_per_second)} and the destination writes "
        f"{format_rate(ASSUMED.write_bytes_per_second)}: measured only once the agents run"
    )
    window = context.spec.max_duration_seconds
    if window and found.seconds > window:
        return Warned(f"{said}; that is more than --max-duration {format_duration(window)}")
    return said


def measured(context: Context) -> str:
    """By what the agents have measured; without a measurement there is no verdict.

    Raises:
        DeadlineError: WINDOW_TOO_SHORT.
    """
    if context.rates is None:
        return "not measured"
    found = predict(context.rates, _left(context), context.spec.transfer)
    context.remember(predicted_seconds=round(found.seconds), bottleneck=found.bottleneck)
    window = context.spec.max_duration_seconds
    if window and found.seconds > window:
        raise DeadlineError(
            "WINDOW_TOO_SHORT",
            f"copy and proof of {need(context.source.volume).name} would take about "
            f"{format_duration(found.seconds)}, more than the {format_duration(window)} of "
            f"--max-duration: {found.bottleneck}; give it a longer window, or none",
            predicted_seconds=round(found.seconds),
            window_seconds=window,
        )
    return f"about {format_duration(found.seconds)}: {found.bottleneck}"


def _left(context: Context) -> int:
    """Bytes of the source that no earlier attempt has made safe."""
    return need(context.source.volume).size_bytes - context.progress.committed_bytes
