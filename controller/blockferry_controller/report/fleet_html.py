"""The report of a fleet as one page that needs nothing else: no script, no font, no picture.

The page is fleet.html.j2, in which everything is escaped unless it says otherwise, and
nothing says so: names come from clouds.
"""

from collections.abc import Mapping
from functools import cache
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined, Template

from blockferry_controller.ui.table import cell, label


def render(report: Mapping[str, Any]) -> str:
    """The page.

    Args:
        report: As fleet.build makes it.
    """
    return _template().render(report=report)


@cache
def _template() -> Template:
    environment = Environment(
        loader=PackageLoader("blockferry_controller", "report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(
        label=label, shown=lambda row, key: cell(key, row[key]), moment=_moment
    )
    return environment.get_template("fleet.html.j2")


def _moment(text: str | None) -> str:
    """A time of the document without what every one of them repeats."""
    return "" if text is None else text.replace("T", " ").removesuffix("+00:00")
