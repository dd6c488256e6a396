"""How long a copy takes and what it waits for. Pure: numbers in, numbers and words out.

The stages work side by side, so the slowest sets the pace: the source reads every byte,
the wire carries what is not zero, compressed, and no faster than --limit, and the
destination writes what is not zero. Afterwards it is read back, at the source's rate for
want of a better guess: a new volume has nothing yet that would be as far to read as a copy.
"""

from typing import Final

from msgspec import Struct

from blockferry.limits import MIB
from blockferry_controller.notation import format_rate
from blockferry_controller.spec import Transfer, Verify


class Rates(Struct, frozen=True):
    """What a prediction is made of.

    Attributes:
        read_bytes_per_second: Sequential reads of the source; above 0.
        link_bytes_per_second: What the agents can exchange; above 0.
        write_bytes_per_second: What the destination makes durable; above 0.
        link_measured, write_measured: Whether the agents have tried it; else it is assumed.
        zero_ratio: Share of the source that is zero and does not travel, in [0, 1].
        compressed_ratio: Size of the rest on the wire, of its size, in (0, 1.01].
    """

    read_bytes_per_second: float
    link_bytes_per_second: float
    write_bytes_per_second: float
    zero_ratio: float = 0.0
    compressed_ratio: float = 1.0
    link_measured: bool = False
    write_measured: bool = False


ASSUMED_LINK: Final = 110.0 * MIB
"""A gigabit per second, less what Ethernet, IP, TCP and TLS take of it."""
ASSUMED_VOLUME: Final = 150.0 * MIB
"""Network storage of most clouds is limited to something like this for one volume."""
ASSUMED: Final = Rates(ASSUMED_VOLUME, ASSUMED_LINK, ASSUMED_VOLUME)


class Prediction(Struct, frozen=True):
    """Copy and proof together; `bottleneck` says in words what sets the pace."""

    seconds: float
    bottleneck: str


def predict(rates: Rates, size_bytes: int, transfer: Transfer) -> Prediction:
    """The time for `size_bytes` of the source.

    Args:
        rates: Measured or assumed.
        size_bytes: What is left to be copied, at least 0.
        transfer: Its limit, compression and proof count.
    """
    wire = data = (1 - rates.zero_ratio) * size_bytes
    if transfer.compression != "none":
        wire *= rates.compressed_ratio
    reading = size_bytes / rates.read_bytes_per_second
    link = _words(rates.link_bytes_per_second, rates.link_measured)
    writes = _words(rates.write_bytes_per_second, rates.write_measured)
    stages = {
        f"reading the source, {format_rate(rates.read_bytes_per_second)}": reading,
        f"the wire, {link}": wire / rates.link_bytes_per_second,
        f"writing the destination, {writes}": data / rates.write_bytes_per_second,
    }
    if transfer.limit_bytes_per_second:
        limit = transfer.limit_bytes_per_second
        stages[f"--limit, {format_rate(limit)}"] = wire / limit
    slowest = max(stages, key=lambda stage: stages[stage])
    proof = reading if transfer.verify is Verify.READBACK else 0.0
    return Prediction(stages[slowest] + proof, f"the bottleneck is {slowest}")


def _words(bytes_per_second: float, measured: bool) -> str:
    return f"{'measured' if measured else 'assumed'} {format_rate(bytes_per_second)}"
