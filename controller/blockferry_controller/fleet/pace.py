"""How long volumes take: by what earlier migrations between the same clouds took.

Pure: records in, a pace out.
"""

from collections.abc import Iterable
from statistics import median
from typing import Final

from msgspec import Struct

from blockferry.limits import GIB
from blockferry_controller.engine.records import MigrationRecord, State
from blockferry_controller.migration.prediction import ASSUMED, predict
from blockferry_controller.notation import format_rate
from blockferry_controller.spec import Transfer

AROUND_SECONDS: Final = 120.0
"""Instances booted, volumes attached and detached, all removed: a guess."""
_LEAST_BYTES: Final = GIB // 4
"""Of smaller ones, what comes before and after the copy is all that one would measure."""
_RECENT: Final = 50


class Pace(Struct, frozen=True):
    """What predictions are made of.

    Attributes:
        bytes_per_second: Of the volume, copy and proof and all; 0 where nobody measured.
        measured: How many migrations say so.
    """

    bytes_per_second: float = 0.0
    measured: int = 0

    def seconds(self, size_bytes: int, transfer: Transfer) -> float:
        """The whole time for a volume of `size_bytes`."""
        if not self.bytes_per_second:
            return AROUND_SECONDS + predict(ASSUMED, size_bytes, transfer).seconds
        limit = transfer.limit_bytes_per_second
        rate = min(self.bytes_per_second, limit) if limit else self.bytes_per_second
        return AROUND_SECONDS + size_bytes / rate

    @property
    def text(self) -> str:
        """For people."""
        if self.measured:
            rate = format_rate(self.bytes_per_second)
            return f"{rate} for a volume, as the last {self.measured} between these clouds took"
        return (
            f"assumed: the source reads {format_rate(ASSUMED.read_bytes_per_second)}, the link "
            f"carries {format_rate(ASSUMED.link_bytes_per_second)}, the destination writes "
            f"{format_rate(ASSUMED.write_bytes_per_second)}"
        )


def measured(records: Iterable[MigrationRecord], source: str, destination: str) -> Pace:
    """The pace between two clouds by `records`, the newest last."""
    rates = []
    for record in records:
        spec, result = record.spec, record.result or {}
        seconds = float(result.get("duration_seconds") or 0.0)
        whole = not result.get("resumed_from_bytes")
        if (
            (spec.source.cloud, spec.destination.cloud) == (source, destination)
            and record.state == State.SUCCEEDED.value
            and record.size_bytes >= _LEAST_BYTES
            and seconds > 0
            and whole
        ):
            rates.append(record.size_bytes / seconds)
    recent = rates[-_RECENT:]
    return Pace(median(recent), len(recent)) if recent else Pace()
