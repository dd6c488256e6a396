"""What of the volume cannot be carried over: listed before the first byte."""

from blockferry_controller.migration.context import Context, need
from blockferry_controller.migration.fidelity import Wish, compare, foresee, told
from blockferry_controller.migration.preflight.check import Warned
from blockferry_controller.spec import Kind


def foreseen(context: Context) -> str | Warned:
    """Everything that describes the volume will be the same, or what will not."""
    if context.spec.kind is Kind.COPY:
        return "bytes only, on this machine"
    source, side = need(context.source.volume), context.destination
    wish = Wish.of(context.spec, source)
    expected = foresee(source, wish, side.volume_type, side.availability_zone or "")
    lost = compare(source, expected, wish)
    context.not_carried = lost
    if not lost:
        return "all of it"
    return Warned(f"not carried: {told(lost)}")
