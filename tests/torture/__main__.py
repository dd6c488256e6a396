"""`python -m tests.torture [--seed N] [--blows N] [--minutes M]`: hit until something gives.

Three theatres at once: `copy` as processes that are killed, `migrate` between
embedded clouds that fail, and migrations between clouds in memory in which any
call goes wrong. Only what did hit counts. Exits 1 when a promise was broken, or
when there were too few blows. The seed that is printed gives every round the
same blows again; what they meet is a matter of time.
"""

import argparse
import random
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Final, TypeAlias

from tests.torture import clouds, copies, embedded
from tests.torture.clouds import Migrating, plain_engine
from tests.torture.copies import Copies
from tests.torture.embedded import Embedded
from tests.torture.tally import Broken, Tally

Play: TypeAlias = Callable[[str], object]
"""One round, by the seed that it is given."""
SHARES: Final = {copies.THEATRE: 0.3, embedded.THEATRE: 0.06, clouds.THEATRE: 0.64}
"""Of the blows, by what a round costs: processes are slow, memory is not."""
LANES: Final = {copies.THEATRE: 2, embedded.THEATRE: 3, clouds.THEATRE: 2}
"""Rounds at once. Most of a round is waiting."""
BROKEN_MAX: Final = 10
"""Enough to look at."""


@dataclass
class Torture:
    """One run of it.

    Attributes:
        seed: Decides everything but time.
        blows: How many are wanted.
        minutes: At most, but for the rounds in hand.
        directory: Where all of it happens; what broke stays there.
    """

    seed: int
    blows: int
    minutes: float
    directory: Path

    def run(self) -> Tally:
        """Strike until all theatres have their share, or the time is up."""
        self._until = time.monotonic() + self.minutes * 60
        self._tally, self._numbers = Tally(), {theatre: count() for theatre in SHARES}
        with ExitStack() as stack:
            lanes = [
                threading.Thread(target=self._lane, args=(theatre, play))
                for theatre, plays in self._stages(stack).items()
                for play in plays
            ]
            for lane in lanes:
                lane.start()
            for lane in lanes:
                lane.join()
        return self._tally

    def _stages(self, stack: ExitStack) -> dict[str, list[Play]]:
        """What plays a round in each lane, by theatre."""
        stack.enter_context(plain_engine())
        copying = Copies(self.directory / "copies", self._tally)
        migrating = Migrating(self.directory / "clouds", self._tally)
        # A pair of clouds has one migration at a time: what is left in them is its.
        pairs = [
            stack.enter_context(Embedded(self.directory / f"embedded-{number}", self._tally))
            for number in range(LANES[embedded.THEATRE])
        ]
        return {
            copies.THEATRE: [copying.round] * LANES[copies.THEATRE],
            embedded.THEATRE: [pair.round for pair in pairs],
            clouds.THEATRE: [migrating.random_round] * LANES[clouds.THEATRE],
        }

    def _lane(self, theatre: str, play: Play) -> None:
        for name in self._names(theatre):
            try:
                play(name)
            except Broken as broken:
                self._tally.fail(str(broken))
                print(broken, file=sys.stderr, flush=True)

    def _names(self, theatre: str) -> Iterator[str]:
        wanted = SHARES[theatre] * self.blows
        while (
            self._tally.times(theatre) < wanted
            and time.monotonic() < self._until
            and len(self._tally.broken) < BROKEN_MAX
        ):
            yield f"{self.seed} {theatre} {next(self._numbers[theatre])}"


def main() -> int:
    """Parse, strike, show."""
    parser = argparse.ArgumentParser(prog="python -m tests.torture", description=__doc__)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10**6))
    parser.add_argument("--blows", type=int, default=500, help="that must hit")
    parser.add_argument("--minutes", type=float, default=13.8, help="at most")
    chosen = parser.parse_args()
    directory = Path(tempfile.mkdtemp(prefix="blockferry-torture-"))
    print(f"seed {chosen.seed}, in {directory}", flush=True)
    start = time.monotonic()
    tally = Torture(chosen.seed, chosen.blows, chosen.minutes, directory).run()
    print(tally.table())
    minutes = (time.monotonic() - start) / 60
    print(f"seed {chosen.seed}, {minutes:.1f} minutes, {tally.total} of {chosen.blows} blows")
    return 1 if tally.broken or tally.total < chosen.blows else 0


if __name__ == "__main__":
    sys.exit(main())
