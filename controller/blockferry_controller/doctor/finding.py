"""What a check of the doctor came to."""

from collections.abc import Callable, Iterator

from msgspec import Struct

from blockferry.errors import BlockferryError


class Finding(Struct, frozen=True):
    """One line of `blockferry doctor`.

    Attributes:
        outcome: `ok`; `warn`, works but worse; `fail`, does not work.
        detail: What was found and, unless it is ok, the way out.
        error: What a failed check ran into; None when it is only a finding.
    """

    name: str
    outcome: str
    detail: str
    error: BlockferryError | None = None


def ok(name: str, detail: str) -> Finding:
    """It works."""
    return Finding(name, "ok", detail)


def warn(name: str, detail: str) -> Finding:
    """It works, but worse."""
    return Finding(name, "warn", detail)


def fail(name: str, detail: str, error: BlockferryError | None = None) -> Finding:
    """It does not work."""
    return Finding(name, "fail", detail, error)


def examined(name: str, look: Callable[[], str]) -> Finding:
    """`ok` with what `look` returns, or `fail` with the error it raises."""
    try:
        return ok(name, look())
    except BlockferryError as error:
        return fail(name, error.message, error)


Findings = Iterator[Finding]
