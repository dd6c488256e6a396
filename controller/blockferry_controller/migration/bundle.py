"""The agent as one file: what user-data carries, so that both sides are one version.

Rules:
* A zipapp: `python3 agent.pyz serve --config FILE` runs it where the locked
  wheels are importable. Inside are `blockferry`, `blockferry_agent` and the
  pure-Python `grpc_health`, as they are installed here.
* The same sources give the same bytes: names are sorted, times fixed.
* Nova's limit is the measure of all things. So comments, docstrings and the
  annotations of functions are left out, by cutting them from the text: every
  line keeps its number, which a traceback from an instance shows. The archive
  is not compressed itself but packed whole, since files deflated one by one
  take half as much again (74 KB against 46 KB when this was measured, 28 KB
  with the cuts).
"""

import ast
import io
import lzma
import tokenize
import zipfile
from collections.abc import Iterator
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Final

from blockferry.errors import InternalError

PACKAGES: Final = ("blockferry", "blockferry_agent", "grpc_health")

_MAIN: Final = "import sys\n\nfrom blockferry_agent.__main__ import main\n\nsys.exit(main())\n"
_TIME: Final = (1980, 1, 1, 0, 0, 0)
"""The earliest a zip file can name."""


@cache
def build_bundle() -> bytes:
    """The zipapp's bytes.

    Raises:
        InternalError: BUNDLE_SOURCE_MISSING when a package is installed without its sources.
    """
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_STORED) as bundle:
        for name, source in sorted({"__main__.py": _MAIN, **_sources()}.items()):
            entry = zipfile.ZipInfo(name, _TIME)
            entry.external_attr = 0o644 << 16
            bundle.writestr(entry, lean(source))
    return archive.getvalue()


@cache
def pack_bundle() -> bytes:
    """`build_bundle()` as an .xz file."""
    return lzma.compress(build_bundle(), preset=9 | lzma.PRESET_EXTREME)


def lean(source: str) -> str:
    """`source` without what a running program does not need, line for line.

    Strings that stand alone (docstrings), comments and the annotations of functions
    go; those of classes stay, since dataclasses are made of them.
    """
    text = source.encode()
    starts = [0]
    for line in text.split(b"\n"):
        starts.append(starts[-1] + len(line) + 1)
    cuts = [*_tree_cuts(text, starts), *_comment_cuts(source, starts)]
    for begin, end, instead in sorted(cuts, reverse=True):
        text = text[:begin] + instead + text[end:]
    return "\n".join(line.rstrip() for line in text.decode().split("\n"))


_Cut = tuple[int, int, bytes]
"""First byte, the byte behind the last, and what comes in place: as many lines."""


def _tree_cuts(text: bytes, starts: list[int]) -> Iterator[_Cut]:
    for node in ast.walk(ast.parse(text)):
        match node:
            case ast.Expr(value=ast.Constant(value=str())):
                begin, end = _span(node, starts)
                # A body must not become empty; an empty string is nothing to run.
                yield begin, end, b"''" + b"\n" * text.count(b"\n", begin, end)
            case ast.arg(annotation=ast.expr() as annotation):
                begin = _span(node, starts)[0] + len(node.arg.encode())
                end = _span(annotation, starts)[1]
                yield begin, end, b"\n" * text.count(b"\n", begin, end)
            case ast.FunctionDef(returns=ast.expr() as returns):
                begin, end = _span(returns, starts)
                begin = text.rindex(b"->", 0, begin)
                yield begin, end, b"\\\n" * text.count(b"\n", begin, end)
            case _:
                pass


def _span(node: ast.expr | ast.stmt | ast.arg, starts: list[int]) -> tuple[int, int]:
    assert node.end_lineno is not None
    assert node.end_col_offset is not None
    begin = starts[node.lineno - 1] + node.col_offset
    return begin, starts[node.end_lineno - 1] + node.end_col_offset


def _comment_cuts(source: str, starts: list[int]) -> Iterator[_Cut]:
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            row, column = token.start
            begin = starts[row - 1] + len(token.line[:column].encode())
            yield begin, begin + len(token.string.encode()), b""


def _sources() -> dict[str, str]:
    """Text of every module, by its path in the bundle."""
    found: dict[str, str] = {}
    for package in PACKAGES:
        root = package_directory(package)
        paths = [path for path in root.rglob("*.py") if "__pycache__" not in path.parts]
        if not paths:
            raise _missing(package)
        for path in paths:
            name = Path(package, path.relative_to(root)).as_posix()
            found[name] = path.read_text(encoding="utf-8")
    return found


def package_directory(package: str) -> Path:
    """Where a package is installed; found without importing it.

    Raises:
        InternalError: BUNDLE_SOURCE_MISSING.
    """
    spec = find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise _missing(package)
    return Path(next(iter(spec.submodule_search_locations)))


def _missing(package: str) -> InternalError:
    return InternalError(
        "BUNDLE_SOURCE_MISSING",
        f"the package {package} is not here as source files, so no instance can be given the "
        "agent; install blockferry again",
        package=package,
    )
