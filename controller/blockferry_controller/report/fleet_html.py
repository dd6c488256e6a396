"""The report of a fleet as one page that needs nothing else: no script, no font, no picture.

The page is fleet.html.j2, a volume in it fleet_volume.html.j2. In both everything is escaped
unless it says otherwise, and nothing says so: names come from clouds.
"""

from collections.abc import Mapping
from functools import cache
from typing import Any, Final

from jinja2 import Environment, PackageLoader, StrictUndefined

from blockferry_controller.ui.table import cell, label

_MARK: Final = "\x00volumes\x00"
"""Of what is shown, nothing has a NUL: cell() escapes it."""


class Html:
    """The form. The page is rendered once around a mark, where the volumes belong."""

    def __init__(self) -> None:
        self._volume = _environment().get_template("fleet_volume.html.j2")
        self._end = ""

    def begin(self, head: Mapping[str, Any]) -> str:
        """See fleet.Form."""
        page = _environment().get_template("fleet.html.j2").render(report=head, volumes=_MARK)
        before, _, self._end = page.partition(_MARK)
        return before

    def row(self, row: Mapping[str, Any]) -> str:
        """See fleet.Form."""
        return self._volume.render(row=row) + "\n"

    def end(self) -> str:
        """See fleet.Form."""
        return self._end


@cache
def _environment() -> Environment:
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
    return environment


def _moment(text: str | None) -> str:
    """A time of the document without what every one of them repeats."""
    return "" if text is None else text.replace("T", " ").removesuffix("+00:00")
