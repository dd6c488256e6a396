"""What the bench is to show: ratios of medians against `blockferry copy --verify wire`."""

from typing import Any, Final

from tests.bench.ways import GZIP, NBDCOPY, ZSTD

RATIOS: Final[dict[str, dict[str, float]]] = {
    GZIP: {"os": 10, "full": 10, "text": 7, "random": 16, "sparse": 20},
    ZSTD: {"os": 4.5, "full": 3.5, "text": 2, "random": 2.8, "sparse": 5},
    NBDCOPY: {"os": 1.6, "full": 1.6, "text": 1.6, "random": 1.7, "sparse": 1.5},
}
RESIDENT_BYTES: Final = 256 << 20
READBACK_COST: Final = 1.25
"""How long `--verify readback` may take, as a multiple of `--verify none`."""

Verdict = tuple[str, str, float, float, bool]
"""Data set, against what, ratio seen, ratio wanted, held."""


def verdicts(result: dict[str, Any]) -> list[Verdict]:
    """Every target that this result can be held against."""
    found: list[Verdict] = []
    for dataset in result["datasets"]:
        seconds = {row["way"]: row["median_seconds"] for row in dataset["ways"]}
        wire, readback, none = list(seconds.values())[:3]
        for peer, wanted in RATIOS.items():
            if peer in seconds and dataset["name"] in wanted:
                least, ratio = wanted[dataset["name"]], seconds[peer] / wire
                found.append((dataset["name"], peer, ratio, least, ratio >= least))
        cost = readback / none
        found.append(
            (dataset["name"], "readback / none", cost, READBACK_COST, cost <= READBACK_COST)
        )
        held = max(row["peak_resident_bytes"] or 0 for row in dataset["ways"])
        most = RESIDENT_BYTES / (1 << 20)
        found.append(
            (dataset["name"], "resident MiB", held / (1 << 20), most, held <= most * 2**20)
        )
    return found


def held(result: dict[str, Any]) -> bool:
    """Whether all targets hold."""
    return all(verdict[-1] for verdict in verdicts(result))


def table(result: dict[str, Any]) -> str:
    """The verdicts for people."""
    lines = [f"\n{'data set':22}{'against':30}{'seen':>8}{'target':>8}"]
    for name, against, seen, wanted, fine in verdicts(result):
        mark = "" if fine else "  MISSED"
        lines.append(f"{name:22}{against:30}{seen:8.2f}{wanted:8.2f}{mark}")
    return "\n".join(lines)
