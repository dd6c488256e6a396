"""Source made lean still means the same."""

import ast
from pathlib import Path

import grpc_health.v1
import pytest

import blockferry
import blockferry_agent
from blockferry_controller.migration.lean import lean

PACKAGES = [Path(package.__path__[0]) for package in (blockferry, blockferry_agent, grpc_health.v1)]
MODULES = sorted(path for root in PACKAGES for path in root.rglob("*.py"))


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        pytest.param("", "", id="empty"),
        pytest.param('"""Doc."""\nx = 1  # why\n', "x=1\n", id="docstring-and-comment"),
        pytest.param('def f():\n    """Only this."""\n', "def f():\n ''\n", id="only-a-docstring"),
        pytest.param(
            "class A:\n    x: int = 1\n    '''About x.'''\n",
            "class A:\n x:int=1\n",
            id="attribute-docstring",
        ),
        pytest.param(
            "def f(a: int, *b: str, c: 'X' = 1) -> dict[\n    str, int\n]:\n    return a\n",
            "def f(a,*b,c=1):\n return a\n",
            id="annotations-of-functions",
        ),
        pytest.param("x = (\n    1,\n    # two\n    2,\n)\n", "x=(1,2,)\n", id="joined-lines"),
        pytest.param(
            "if a:\n\n    b\n\nelse:\n    c\n", "if a:\n b\nelse:\n c\n", id="blank-lines"
        ),
        pytest.param('x = """a\n\n  # b\n"""\n', 'x="""a\n\n  # b\n"""\n', id="text-stays"),
        pytest.param("x = f'{a!r} # {b:>{c}}' 'z'\n", "x=f'{a!r} # {b:>{c}}' 'z'\n", id="f-string"),
        pytest.param(
            'x = f"""{a}\n  {b}"""\n', 'x=f"""{a}\n  {b}"""\n', id="f-string-of-two-lines"
        ),
        pytest.param("x = a if b else not c\n", "x=a if b else not c\n", id="words-stay-apart"),
        pytest.param("x = 1 .real\ny = 1 if x else.5\n", "x=1 .real\ny=1 if x else.5\n", id="dots"),
        pytest.param("x = 'ö' # ü\ny = 'ß'\n", "x='ö'\ny='ß'\n", id="more-than-ascii"),
        pytest.param("return_ = lambda a: -a\n", "return_=lambda a:-a\n", id="lambda"),
        pytest.param("x = a - -b\ny = a < -1\n", "x=a--b\ny=a<-1\n", id="signs"),
    ],
)
def test_what_goes_and_what_stays(source: str, expected: str) -> None:
    assert lean(source) == expected
    ast.parse(expected)


@pytest.mark.parametrize("path", MODULES, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_every_module_we_ship_means_the_same(path: Path) -> None:
    source = path.read_text(encoding="utf-8")
    assert meaning(lean(source)) == meaning(source)
    assert len(lean(source)) <= len(source)


def meaning(source: str) -> str:
    """The syntax tree without what `lean` takes away."""
    tree = ast.parse(source)
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            node.returns = None
        if isinstance(node, ast.arg):
            node.annotation = None
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef):
            node.body = [each for each in node.body if not is_text(each)] or [ast.Pass()]
    return ast.dump(tree)


def is_text(node: ast.stmt) -> bool:
    return (
        isinstance(node, ast.Expr)
        and isinstance(node.value, ast.Constant)
        and isinstance(node.value.value, str)
    )
