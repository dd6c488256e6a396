"""`python -m tests.torture [--seed N] [--rounds N] [--minutes M]`: hit until something gives.

Two theatres, in turn: `copy` as processes that are killed, and migrations
between clouds in memory in which calls fail. First every case of the fault
matrix once, then at random. Exits 1 when a promise was broken; the seed that is
printed plays the same blows again.
"""

import argparse
import random
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from tests.torture.clouds import Migrating
from tests.torture.copies import Copies
from tests.torture.tally import Broken, Tally


def torture(
    seed: int, rounds: int, minutes: float, directory: Path, *, cases: int | None = None
) -> Tally:
    """Strike until `rounds` copies are done or the time is up.

    Args:
        seed: Decides everything but time.
        rounds: Copies at most.
        minutes: At most, but for the round in hand.
        directory: Where all of it happens; what broke stays there.
        cases: Of the matrix, chosen at random; None for all.
    """
    until, dice, tally = time.monotonic() + minutes * 60, random.Random(seed), Tally()
    copies, migrating = Copies(directory / "copies", tally), Migrating(directory / "clouds", tally)
    matrix = migrating.cases()
    dice.shuffle(matrix)
    matrix = matrix[:cases]
    for number in range(rounds):
        if time.monotonic() > until:
            break
        _try(tally, partial(copies.round, f"{seed} copy {number}"))
        # As many as a copy takes seconds: about half of the time each.
        for step in range(max(4, -(-len(matrix) // max(1, rounds)))):
            if matrix:
                _try(tally, partial(migrating.case, matrix.pop()))
            elif cases is None:
                name = f"{seed} migration {number}.{step}"
                _try(tally, partial(migrating.random_round, name))
    while matrix and time.monotonic() < until:
        _try(tally, partial(migrating.case, matrix.pop()))
    return tally


def _try(tally: Tally, play: Callable[[], object]) -> None:
    try:
        play()
    except Broken as broken:
        tally.fail(str(broken))
        print(broken, file=sys.stderr, flush=True)


def main() -> int:
    """Parse, strike, show."""
    parser = argparse.ArgumentParser(prog="python -m tests.torture", description=__doc__)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10**6))
    parser.add_argument("--rounds", type=int, default=70, help="copies at most")
    parser.add_argument("--minutes", type=float, default=12.0)
    chosen = parser.parse_args()
    directory = Path(tempfile.mkdtemp(prefix="blockferry-torture-"))
    print(f"seed {chosen.seed}, in {directory}", flush=True)
    tally = torture(chosen.seed, chosen.rounds, chosen.minutes, directory)
    print(tally.table())
    return 1 if tally.broken else 0


if __name__ == "__main__":
    sys.exit(main())
