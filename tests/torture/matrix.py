"""Which calls of a migration go wrong, and how: the fault matrix of the controller.

Each cell is struck at the first, a middle and the last call on each side (S, D) that
hears it in a clean run, which is the twin that must succeed; `error` and `killed`
before and after the call took effect.

    error   the call raises, as an adapter does that has tried often enough
    killed  the controller dies there: nothing more of it runs
    lost    the side's instance is gone, agent and disk included
    peer    the other side's instance is gone
    away    the side's cloud answers nothing from there on, until the run has ended; a call
            of an agent that is struck by it takes place: it is none of the cloud's

That of the data (read, write, zero, flush, send, receive, ack) is in
tests/integration/test_data_faults.py.
"""

from dataclasses import dataclass
from typing import Final

TABLE: Final = """
call                    sides  error  killed  lost  peer  away
find_volume             SD     x      x       .     .     x
list_flavors            SD     x      x       .     .     x
list_images             SD     x      x       .     .     x
list_networks           SD     x      x       .     .     x
quota                   SD     x      x       .     .     x
ensure_volume           D      x      x       .     .     x
ensure_security_group   SD     x      x       .     .     x
ensure_port             SD     x      x       .     .     x
ensure_server           SD     x      x       .     .     x
attach_volume           SD     x      x       x     x     x
describe                SD     x      x       x     x     x
create_signing_request  SD     x      x       x     x     x
adopt_identity          SD     x      x       x     x     x
probe_peer              S      x      x       x     x     x
list_jobs               SD     x      x       x     x     x
start_job               SD     x      x       x     x     x
watch_job               SD     x      .       x     x     x
read_manifest           D      x      .       x     x     x
write_manifest          SD     x      x       .     .     x
cancel_job              SD     x      x       .     .     x
detach_volume           SD     x      x       x     x     x
delete_server           SD     x      x       .     .     x
delete_port             SD     x      x       .     .     x
delete_security_group   SD     x      x       .     .     x
find_resources          SD     x      x       .     .     x
release_volume          D      x      x       .     .     x
"""
"""`watch_job` and `read_manifest` run in helper threads; a process dies in all at once."""


def _parse() -> dict[str, list[str]]:
    header, *rows = [line.split() for line in TABLE.strip().splitlines()]
    kinds = header[2:]
    return {
        verb: [kind for kind, cell in zip(kinds, cells, strict=True) if cell == "x"]
        for verb, _, *cells in rows
    }


KINDS: Final = _parse()
"""Verb -> what may be done to a call of it."""


def _sides() -> dict[str, list[str]]:
    names = {"S": "source", "D": "destination"}
    _, *rows = [line.split() for line in TABLE.strip().splitlines()]
    return {verb: [names[letter] for letter in sides] for verb, sides, *_ in rows}


HEARD_BY: Final = _sides()
"""Verb -> sides on which it is called."""
RARE: Final = ("write_manifest", "cancel_job")
"""Called only when something went wrong before: random rounds strike them."""


@dataclass(frozen=True)
class Fault:
    """One call that goes wrong.

    Attributes:
        nth: Which call of `verb` on `side`, from 1.
        late: After it took effect.
        kind: See the module.
    """

    side: str
    verb: str
    nth: int
    late: bool
    kind: str

    def __str__(self) -> str:
        when = "after" if self.late else "before"
        return f"{self.kind} {when} {self.verb} no. {self.nth} of the {self.side}"
