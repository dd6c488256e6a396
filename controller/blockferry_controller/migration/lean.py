"""Python source without what a running program does not need.

User-data is limited, and source is most of it. What goes:
* strings that stand alone (docstrings), comments, blank lines;
* annotations of functions; those of classes stay, since dataclasses are made of them;
* spaces that separate nothing, line breaks within brackets, and all but one
  space a level of indentation.

The text is cut and joined, never printed anew from a syntax tree: what Python
3.14's printer makes of an f-string, Python 3.10 in an instance might not read.
"""

import ast
import io
import token
import tokenize
from collections.abc import Iterator

_Cut = tuple[int, int, bytes]
"""First byte, the byte behind the last, and what comes in place."""

_OPENS = {getattr(token, name, -1) for name in ("FSTRING_START", "TSTRING_START")} - {-1}
_CLOSES = {getattr(token, name, -1) for name in ("FSTRING_END", "TSTRING_END")} - {-1}
"""Since Python 3.12 an f-string is several tokens; here it stays one piece."""


def lean(source: str) -> str:
    """`source`, shorter, with the same meaning; lines have other numbers."""
    return _squeeze(_without_idle_parts(source))


def _without_idle_parts(source: str) -> str:
    text = source.encode()
    starts = [0]
    for line in text.split(b"\n"):
        starts.append(starts[-1] + len(line) + 1)
    for begin, end, instead in sorted(_idle_parts(text, starts), reverse=True):
        text = text[:begin] + instead + text[end:]
    return text.decode()


def _idle_parts(text: bytes, starts: list[int]) -> Iterator[_Cut]:
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef):
            yield from _idle_strings(node.body, starts)
        match node:
            case ast.arg(annotation=ast.expr() as annotation):
                begin = _span(node, starts)[0] + len(node.arg.encode())
                yield begin, _span(annotation, starts)[1], b""
            case ast.FunctionDef(returns=ast.expr() as returns):
                begin, end = _span(returns, starts)
                yield text.rindex(b"->", 0, begin), end, b""
            case _:
                pass


def _idle_strings(body: list[ast.stmt], starts: list[int]) -> Iterator[_Cut]:
    idle = [
        statement
        for statement in body
        if isinstance(statement, ast.Expr)
        and isinstance(statement.value, ast.Constant)
        and isinstance(statement.value.value, str)
    ]
    # A body must not become empty; an empty string is nothing to run.
    instead = b"''" if len(idle) == len(body) else b""
    for statement in idle:
        yield *_span(statement, starts), instead


def _span(node: ast.expr | ast.stmt | ast.arg, starts: list[int]) -> tuple[int, int]:
    assert node.end_lineno is not None
    assert node.end_col_offset is not None
    begin = starts[node.lineno - 1] + node.col_offset
    return begin, starts[node.end_lineno - 1] + node.end_col_offset


def _squeeze(source: str) -> str:
    """Each logical line on one line, indented by one space a level."""
    lines: list[str] = []
    line, level = "", 0
    for kind, text in _pieces(source):
        if kind == token.INDENT:
            level += 1
        elif kind == token.DEDENT:
            level -= 1
        elif kind == token.NEWLINE:
            lines.append(" " * level + line)
            line = ""
        elif kind not in {token.NL, token.COMMENT, token.ENDMARKER}:
            line += (" " if _would_merge(line, text) else "") + text
    return "\n".join([*lines, ""])


def _pieces(source: str) -> Iterator[tuple[int, str]]:
    """Kind and text of every token, f-strings whole."""
    rows = source.splitlines(keepends=True)
    depth, begin = 0, (0, 0)
    for item in tokenize.generate_tokens(io.StringIO(source).readline):
        if item.type in _OPENS:
            begin = item.start if depth == 0 else begin
            depth += 1
        elif item.type in _CLOSES:
            depth -= 1
            if depth == 0:
                yield token.STRING, _slice(rows, begin, item.end)
        elif depth == 0:
            yield item.type, item.string


def _slice(rows: list[str], begin: tuple[int, int], end: tuple[int, int]) -> str:
    if begin[0] == end[0]:
        return rows[begin[0] - 1][begin[1] : end[1]]
    middle = rows[begin[0] : end[0] - 1]
    return "".join([rows[begin[0] - 1][begin[1] :], *middle, rows[end[0] - 1][: end[1]]])


def _would_merge(line: str, text: str) -> bool:
    """Whether two tokens side by side would be read as another one."""
    if not line:
        return False
    before, after = line[-1], text[0]
    words = (before.isalnum() or before in "_\"'") and (after.isalnum() or after in "_\"'")
    return words or (before.isdigit() and after == ".") or (before == "." and after.isdigit())
