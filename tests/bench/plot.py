"""The result as a picture: how many times longer every other way took."""

from pathlib import Path
from typing import Any

WIDTH_INCHES, HEIGHT_INCHES = 9.0, 4.5


def draw(result: dict[str, Any], path: Path) -> None:
    """Write a PNG, if anybody was compared; needs matplotlib (a development dependency)."""
    import matplotlib as mpl  # noqa: PLC0415

    mpl.use("Agg")
    from matplotlib import pyplot  # noqa: PLC0415

    sets = result["datasets"]
    ways = [row["way"] for row in sets[0]["ways"] if row["cpu_seconds"] is None]
    if not ways:
        return
    figure, axes = pyplot.subplots(figsize=(WIDTH_INCHES, HEIGHT_INCHES), layout="constrained")
    width = 0.8 / len(ways)
    for number, way in enumerate(ways):
        heights = [_ratio(one, way) for one in sets]
        at = [index + number * width for index in range(len(sets))]
        axes.bar(at, heights, width, label=way)
    axes.axhline(1, color="black", linewidth=1)
    axes.set_xticks(
        [index + 0.4 - width / 2 for index in range(len(sets))], [one["name"] for one in sets]
    )
    axes.set_yscale("log")
    axes.set_ylabel("times as long as blockferry copy")
    axes.set_title(f"{result['machine']}; storage: {result['storage']}", fontsize=9)
    axes.legend(fontsize=8, ncols=2)
    figure.savefig(path, dpi=110)
    pyplot.close(figure)


def _ratio(dataset: dict[str, Any], way: str) -> float:
    rows = {row["way"]: row["median_seconds"] for row in dataset["ways"]}
    ours: float = dataset["ways"][0]["median_seconds"]
    return float(rows.get(way, ours)) / ours
