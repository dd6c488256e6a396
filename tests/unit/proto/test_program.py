import subprocess
import sys

import pytest


def run(main: str) -> "subprocess.CompletedProcess[str]":
    """A program whose `main` has that body."""
    code = (
        "import atexit, sys, threading, time\n"
        "from blockferry.program import run\n"
        f"def main():\n {main}\n"
        "run(main)\n"
    )
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=20
    )


@pytest.mark.parametrize(
    ("main", "code"),
    [
        ("return 0", 0),
        ("return 20", 20),
        ("sys.exit()", 0),
        ("sys.exit(2)", 2),
        ("sys.exit('no')", 1),
        ("raise ValueError", 1),
    ],
)
def test_it_exits_so(main: str, code: int) -> None:
    assert run(main).returncode == code


def test_what_was_written_arrives() -> None:
    done = run("print('out'); print('err', file=sys.stderr); return 3")

    assert (done.stdout, done.stderr, done.returncode) == ("out\n", "err\n", 3)


def test_a_defect_leaves_its_trace() -> None:
    assert "ValueError: here" in run("raise ValueError('here')").stderr


def test_threads_and_exit_handlers_come_to_their_end() -> None:
    late = "lambda: (time.sleep(0.2), print('thread'))"
    done = run(f"atexit.register(print, 'exit'); threading.Thread(target={late}).start(); return 0")

    assert done.stdout == "thread\nexit\n"


def test_python_does_not_take_itself_apart() -> None:
    """An object that a module holds is not finalized: the kernel takes all back."""
    kept = "type('Kept', (), {'__del__': lambda _: print('apart')})()"
    done = run(f"global kept; kept = {kept}; return 0")

    assert done.stdout == ""
