"""The door of `blockferry`: the one place where errors become messages and exit codes.

Rules:
* `blockferry: error: …` goes to standard error; no traceback unless -vv.
* With -o json or yaml, standard output gets one document also when it failed:
  what is known, and `error` with reason, message, metadata, exit_code.
* Exit codes are those of blockferry.errors, and 141 (as for SIGPIPE) when the
  reader of standard output went away.
"""

import os
import select
import signal
import sys
import traceback
from collections.abc import Sequence
from types import FrameType
from typing import Any, Final, NoReturn, TextIO

import click
from click.shell_completion import shell_complete

from blockferry.errors import BlockferryError, CancelledError, InternalError, UsageError
from blockferry.program import run
from blockferry_controller.cli.root import blockferry
from blockferry_controller.cli.session import Session
from blockferry_controller.notation import printable

_OUTPUT_LOST: Final = 141
_COMPLETION: Final = "_BLOCKFERRY_COMPLETE"
"""Set by the shell's completion; see `docs/cli.md`."""


def main(arguments: Sequence[str] | None = None, session: Session | None = None) -> int:
    """Run one command.

    Args:
        arguments: Without the program's name; None for those of the process.
        session: What the command works with; None for a fresh one.

    Returns:
        The exit code.
    """
    given = list(sys.argv[1:] if arguments is None else arguments)
    signal.signal(signal.SIGTERM, _terminated)
    for stream in (sys.stdout, sys.stderr):
        _never_refuse(stream)
    try:
        code = _run(given, session or Session())
        sys.stdout.flush()
        return code
    except BrokenPipeError:
        _drop_output()
        return _OUTPUT_LOST


def program() -> NoReturn:
    """The command `blockferry`."""
    run(main)


def _run(arguments: list[str], session: Session) -> int:
    completion = os.environ.get(_COMPLETION)
    if completion:
        return shell_complete(blockferry, {}, "blockferry", _COMPLETION, completion)
    try:
        _refuse_what_is_no_text(arguments)
        # Not blockferry.main(): it takes every EPIPE for a lost reader and exits 1.
        with blockferry.make_context("blockferry", list(arguments), obj=session) as context:
            blockferry.invoke(context)
        return 0
    except click.exceptions.Exit as done:
        return done.exit_code
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message(), err=True)
        return UsageError.meaning.exit_code
    except (click.Abort, KeyboardInterrupt):
        return _failed(CancelledError("INTERRUPTED", "interrupted"), arguments, session)
    except Exception as error:
        if isinstance(error, BrokenPipeError) and _reader_left():
            raise
        return _failed(_explained(error), arguments, session)


def _refuse_what_is_no_text(arguments: list[str]) -> None:
    """Neither databases nor APIs nor messages to agents can carry such a name."""
    for argument in arguments:
        try:
            argument.encode("utf-8")
        except UnicodeEncodeError:
            raise UsageError(
                "NOT_TEXT",
                f"{argument!r} is not text in UTF-8; give the file another name, or a link to it",
            ) from None


def _explained(error: Exception) -> BlockferryError:
    """Any error as one of ours; the original stays as its cause."""
    if isinstance(error, BlockferryError):
        return error
    ours: BlockferryError
    if isinstance(error, click.ClickException):
        ours = UsageError("USAGE", error.format_message())
    else:
        ours = InternalError(
            "UNEXPECTED",
            f"unexpected {type(error).__name__}: {error}. This is a defect of Blockferry: "
            "please report it with what the same command prints with -vv",
        )
    ours.__cause__ = error
    return ours


def _failed(error: BlockferryError, arguments: list[str], session: Session) -> int:
    code = error.meaning.exit_code
    if session.verbosity >= 2:
        traceback.print_exception(error)
    click.echo(f"blockferry: error: {printable(error.message, lines=True)}", err=True)
    if session.hint:
        click.echo(f"blockferry: {session.hint}", err=True)
    output = session.output or _asked_for(arguments)
    if output in {"json", "yaml"}:
        from blockferry_controller.ui import table  # noqa: PLC0415 - only when it failed

        table.write_structured({**session.document, "error": _document(error, code)}, output)
    return code


def _document(error: BlockferryError, code: int) -> dict[str, Any]:
    return {
        "reason": error.reason,
        "message": error.message,
        "metadata": error.metadata,
        "exit_code": code,
    }


def _asked_for(arguments: list[str]) -> str | None:
    """The --output of a command line that could not be parsed."""
    for at, word in enumerate(arguments):
        following = arguments[at + 1] if at + 1 < len(arguments) else None
        if word in {"-o", "--output"}:
            return following
        for prefix in ("--output=", "-o"):
            if word.startswith(prefix):
                return word[len(prefix) :]
    return os.environ.get("BLOCKFERRY_OUTPUT")


def _terminated(number: int, frame: FrameType | None) -> None:
    """SIGTERM ends a command as Ctrl-C does."""
    del number, frame
    raise KeyboardInterrupt


def _never_refuse(stream: TextIO) -> None:
    """File names need not be text: write what cannot be encoded as an escape."""
    reconfigure = getattr(stream, "reconfigure", None)
    if reconfigure is not None:
        reconfigure(errors="backslashreplace")


def _reader_left() -> bool:
    """Whether standard output leads nowhere, and not some other pipe of ours.

    poll(2): POLLERR is also set for the write end of a pipe without readers.
    """
    poller = select.poll()
    poller.register(sys.stdout.fileno(), 0)
    return bool(poller.poll(0))


def _drop_output() -> None:
    """Keep the interpreter's last flush from complaining about a closed pipe."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    os.close(nowhere)


if __name__ == "__main__":
    program()
