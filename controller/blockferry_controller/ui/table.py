"""Results on standard output: as a table for people, as JSON or YAML for programs.

Tables are never cut to the terminal's width: an id that lost its end is of no
use to anybody, and what goes into a pipe has no width.
"""

import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

import click

from blockferry_controller.notation import format_bytes, format_duration, format_rate, printable

Columns = Sequence[tuple[str, str]]
"""Heading and key of each column."""

STRUCTURED: Final = frozenset({"json", "yaml"})


def write_rows(
    rows: Sequence[Mapping[str, Any]], columns: Columns, output: str | None, *, empty: str
) -> None:
    """Write a list. `empty` is what people read when there is nothing."""
    if output in STRUCTURED:
        write_structured([dict(row) for row in rows], output)
    elif rows:
        click.echo(render_rows(rows, columns))
    else:
        click.echo(empty, err=True)


def write_stream(rows: Iterable[Mapping[str, Any]], output: str | None) -> None:
    """Write one JSON or YAML array as its elements come, without ever having them all."""
    out = sys.stdout
    if output == "yaml":
        import yaml  # noqa: PLC0415 - few ask for it

        some = False
        for row in rows:
            some = True
            out.write(yaml.safe_dump([dict(row)], sort_keys=False, allow_unicode=True))
        out.write("" if some else "[]\n")
        return
    # An element a line: indenting is done in Python, and took most of the time of 100,000.
    before = "[\n"
    for row in rows:
        out.write(before + json.dumps(dict(row)))
        before = ",\n"
    out.write("[]\n" if before == "[\n" else "\n]\n")


def write_record(document: Mapping[str, Any], output: str | None) -> None:
    """Write one document; people get a line a key."""
    if output in STRUCTURED:
        write_structured(dict(document), output)
    else:
        click.echo(render_record(document))


def write_line(line: str, document: Mapping[str, Any], output: str | None) -> None:
    """Write `line` for people, `document` for programs."""
    if output in STRUCTURED:
        write_structured(dict(document), output)
    else:
        click.echo(line)


def write_structured(document: Any, output: str | None) -> None:
    """Write one JSON or YAML document."""
    if output == "yaml":
        import yaml  # noqa: PLC0415 - few ask for it

        click.echo(yaml.safe_dump(document, sort_keys=False, allow_unicode=True), nl=False)
    else:
        click.echo(json.dumps(document, indent=2))


def render_rows(rows: Sequence[Mapping[str, Any]], columns: Columns) -> str:
    """Aligned columns under headings; numbers to the right."""
    cells = [[cell(key, row.get(key)) for _, key in columns] for row in rows]
    lines = [[heading.upper() for heading, _ in columns], *cells]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    right = [_is_quantity(key) for _, key in columns]
    return "\n".join(
        "  ".join(
            text.rjust(width) if to_right else text.ljust(width)
            for text, width, to_right in zip(line, widths, right, strict=True)
        ).rstrip()
        for line in lines
    )


def render_record(document: Mapping[str, Any]) -> str:
    """A line a key, nested documents indented below theirs."""
    return "\n".join(_record_lines(document, ""))


def _record_lines(document: Mapping[str, Any], indent: str) -> list[str]:
    names = {key: label(key) for key in document}
    width = max(map(len, names.values()), default=0)
    lines = []
    for key, value in document.items():
        if isinstance(value, Mapping) and value and not _unit(key):
            lines += [f"{indent}{names[key]}", *_record_lines(value, indent + "  ")]
        elif isinstance(value, list) and value and isinstance(value[0], Mapping):
            columns = [(label(column), column) for column in value[0]]
            body = render_rows(value, columns).splitlines()
            lines += [f"{indent}{names[key]}", *(f"{indent}  {line}" for line in body)]
        else:
            lines.append(f"{indent}{names[key]:<{width}}  {cell(key, value)}".rstrip())
    return lines


def cell(key: str, value: object) -> str:
    """One value for people; the key tells its unit."""
    if value is None or value in ("", [], {}):
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int | float):
        return _quantity(key, value)
    if isinstance(value, Mapping):
        # Several of one quantity, as in `peak_resident_bytes`.
        return ", ".join(
            f"{printable(label(name))} {cell(name + _unit(key), of)}" for name, of in value.items()
        )
    if isinstance(value, list | tuple):
        return ", ".join(cell("", item) for item in value)
    return printable(str(value))


def _quantity(key: str, value: float) -> str:
    if key.endswith("bytes_per_second"):
        return format_rate(value) if value else "-"
    if key.endswith("_bytes"):
        return format_bytes(value)
    if key.endswith("seconds"):
        return format_duration(value)
    return str(value)


def _is_quantity(key: str) -> bool:
    return key.endswith(("_bytes", "seconds"))


def label(key: str) -> str:
    """A key as a heading: without its unit, in words."""
    if key == "bytes_per_second":
        return "rate"
    return key.removesuffix(_unit(key)).replace("_", " ")


def _unit(key: str) -> str:
    """The part of a key that tells its unit; empty when there is none."""
    units = ("_bytes_per_second", "_bytes", "_seconds")
    return next((unit for unit in units if key.endswith(unit)), "")
