"""A check: its name, how it is made, what it came to.

Rules:
* A check decides one thing. It returns what it found, returns `Warned` when the migration
  works but not quite as a person may expect, and raises when it cannot work. Text of the
  last two names the way out.
* Its name is a contract: people skip it by that name, programs read it.
* What later steps build on (a volume found, an image chosen) cannot be skipped.
"""

from collections.abc import Callable, Iterable, Iterator
from enum import Enum
from typing import Final

from msgspec import Struct

from blockferry.errors import BlockferryError
from blockferry_controller.migration.context import Context


class Outcome(Enum):
    """What a check came to."""

    OK = "ok"
    WARN = "warn"
    FAIL = "fail"


class Check(Struct, frozen=True):
    """One check that was made.

    Attributes:
        detail: What was found and, unless it is ok, the way out.
        error: What a failed check raised; its class gives the exit code.
    """

    name: str
    outcome: Outcome
    detail: str
    error: BlockferryError | None = None


class Warned(Struct, frozen=True):
    """It will work, but; for people."""

    detail: str


class Rule(Struct, frozen=True):
    """One check that can be made.

    Attributes:
        name: Lower case words joined by hyphens.
        look: Makes it.
        after: Names of rules whose findings it uses: not made when one of them failed.
        needed: Later steps build on what it finds, so it cannot be skipped.
    """

    name: str
    look: Callable[[Context], str | Warned]
    after: tuple[str, ...] = ()
    needed: bool = False


SKIPPED: Final = "skipped, as --skip-check says"


def examine(rules: Iterable[Rule], context: Context) -> Iterator[Check]:
    """Make every check, in order, but for those that build on one that failed."""
    failed: set[str] = set()
    for rule in rules:
        if failed.intersection(rule.after):
            failed.add(rule.name)
            continue
        check = _made(rule, context)
        if check.outcome is Outcome.FAIL:
            failed.add(rule.name)
        yield check


def _made(rule: Rule, context: Context) -> Check:
    if rule.name in context.spec.skip_checks and not rule.needed:
        return Check(rule.name, Outcome.WARN, SKIPPED)
    try:
        found = rule.look(context)
    except BlockferryError as error:
        return Check(rule.name, Outcome.FAIL, error.message, error)
    if isinstance(found, Warned):
        return Check(rule.name, Outcome.WARN, found.detail)
    return Check(rule.name, Outcome.OK, found)


def enforce(rules: Iterable[Rule], context: Context) -> list[Check]:
    """Make every check; tell people the warnings, raise the first failure.

    Raises:
        BlockferryError: the failed check's own.
    """
    made = []
    for check in examine(rules, context):
        made.append(check)
        if check.error is not None:
            raise check.error
        if check.outcome is Outcome.WARN:
            context.note(f"{check.name}: {check.detail}", level="warning")
    return made
