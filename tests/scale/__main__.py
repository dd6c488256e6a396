"""`make fleet-scale`: thousands of volumes, with one controller and with three."""

import argparse
import signal
import sys
from collections.abc import Iterator

from tests.postgres import postgres
from tests.scale.promises import judge
from tests.scale.run import Played, Plot, play
from tests.scale.world import Weather


def main() -> int:
    """Play both forms, print a table for each; 0 when every promise holds."""
    parser = argparse.ArgumentParser(prog="make fleet-scale")
    parser.add_argument("--volumes", type=int, default=10_000)
    parser.add_argument("--at-once", type=int, default=200)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--errors", type=float, default=0.01, help="share of calls that fail")
    parser.add_argument("--losses", type=float, default=0.005, help="share of instances lost")
    parser.add_argument("--minutes", type=float, default=60, help="for each form, at most")
    parser.add_argument("--database", choices=["sqlite", "postgresql", "both"], default="both")
    options = parser.parse_args()
    # Also when it is told to end, none of its processes may be left.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    well = True
    for played in _forms(options):
        plot = played.plot
        print(
            f"{plot.volumes} volumes, {plot.at_once} at a time, {plot.weather.errors:.2%} of "
            f"calls fail, {plot.weather.losses:.2%} of instances are lost, seed "
            f"{plot.weather.seed}; {plot.workers} process(es) on {played.database}",
            flush=True,
        )
        table = judge(played)
        print("\n".join(map(str, table)), end="\n\n", flush=True)
        if any(line.holds is False for line in table):
            print(played.told, file=sys.stderr)
            well = False
    return 0 if well else 1


def _forms(options: argparse.Namespace) -> Iterator[Played]:
    weather = Weather(options.seed, options.errors, options.losses)
    plot = Plot(options.volumes, options.at_once, weather, minutes=options.minutes)
    if options.database != "postgresql":
        yield play(plot)
    if options.database != "sqlite":
        several = Plot(
            options.volumes, options.at_once, weather, workers=3, minutes=options.minutes
        )
        with postgres() as server:
            yield play(several, server)


if __name__ == "__main__":
    sys.exit(main())
