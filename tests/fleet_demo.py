"""`make fleet-demo`: 60 volumes in three waves, four faults, a killed controller, no loss.

The batch is killed with SIGKILL when a third is through, and the same command is run again.
Each line below the story is a promise, held against what both clouds themselves say; the exit
code is 1 when one does not hold.
"""

import argparse
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from blockferry.limits import GIB
from tests.fleet_show import Show, show

FAULTS = 4
SECONDS_MAX = 360.0
"""What was promised for 60 volumes on two cores."""
REQUESTS_MAX = {True: 35, False: 85}
"""For a volume, with pairs that are shared and without."""
_WORTH_TELLING = 0.1
_DIGESTED = 3
"""Volumes whose digest is also computed from the file of the source, by the command for it."""


@dataclass(frozen=True)
class Finding:
    """A promise, and what was found of it."""

    holds: bool
    text: str

    def __str__(self) -> str:
        return f"{'ok  ' if self.holds else 'FAIL'} {self.text}"


def main() -> int:
    """Show it; 0 when every promise holds."""
    parser = argparse.ArgumentParser(prog="make fleet-demo")
    parser.add_argument("--volumes", type=int, default=60)
    parser.add_argument("--concurrency", type=int, default=4)
    parser.add_argument("--no-pool", action="store_true", help="each volume has its own instances")
    options = parser.parse_args()
    directory = Path(tempfile.mkdtemp(prefix="blockferry-fleet-"))
    start = time.monotonic()

    def say(text: object) -> None:
        print(f"[{time.monotonic() - start:6.1f} s] {text}", flush=True)

    try:
        with show(
            directory, count=options.volumes, concurrency=options.concurrency,
            pooled=not options.no_pool,
        ) as stage:  # fmt: skip
            say(f"{options.volumes} volumes in east")
            plan = stage.run("plan", str(stage.fleet), seconds=120)
            say(plan.stdout.rsplit("\n\n", 1)[-1].strip() or plan.stderr)
            stage.break_things()
            through = stage.kill_in_the_middle(seconds=1200)
            state = stage.state()["state"]
            say(f"controller killed (SIGKILL) with {through} volumes through; the same again")
            last = stage.run("batch", str(stage.fleet), seconds=1800)
            seconds = time.monotonic() - start
            requests = stage.requests()
            say(f"exit code {last.returncode}: {last.stdout.strip().rsplit(chr(10), 1)[-1]}")
            if last.returncode:
                print(last.stderr[-3000:], file=sys.stderr)
            findings = [
                Finding(state == "INTERRUPTED", f"killed: the fleet was {state} afterwards"),
                Finding(last.returncode == 0, f"run again: exit code {last.returncode}"),
                *promises(stage),
                of_requests(requests, len(stage.volumes), pooled=stage.pooled),
                Finding(seconds < SECONDS_MAX, f"time: {seconds:.0f} s of {SECONDS_MAX:.0f} s"),
            ]
            for finding in findings:
                say(finding)
            return 0 if all(finding.holds for finding in findings) else 1
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def promises(stage: Show) -> Iterator[Finding]:
    """What is to hold once the fleet is through."""
    unequal = stage.unequal()
    names = f" (not: {', '.join(unequal[:5])})" if unequal else ""
    equal = len(stage.volumes) - len(unequal)
    yield Finding(not unequal, f"equal, byte for byte: {equal} of {len(stage.volumes)}{names}")
    report = stage.report()
    yield _of_faults(stage, report)
    attempts = Counter(one["attempts"] for one in report["volumes"])
    again = sum(count for number, count in attempts.items() if number > 1)
    yield Finding(again > 0, f"gone on with after the kill: {again} volumes, as a later attempt")
    yield _of_report(stage, report)
    left = stage.left()
    yield Finding(not left, f"left over: {len(left)}{': ' if left else ''}{', '.join(left)}")


def _of_faults(stage: Show, report: dict[str, Any]) -> Finding:
    unspent = stage.unspent()
    vain = sum(one["attempts"] for one in stage.state()["volumes"])
    failed = report["totals"].get("failed", 0)
    told = f", never: {', '.join(unspent)}" if unspent else ""
    return Finding(
        not unspent and not failed,
        f"faults: {FAULTS - len(unspent)} of {FAULTS} struck{told}; they cost {vain} attempts, "
        f"and {failed} volumes",
    )


def _of_report(stage: Show, report: dict[str, Any]) -> Finding:
    """The report against the clouds: totals, waves, each volume's copy, some digests."""
    count, totals, copies = len(stage.volumes), report["totals"], stage.copies()
    expected = {
        "volumes": count, "succeeded": count, "verified": count, "left_behind": 0,
        "size_bytes": sum(one.size for one in copies.values()) * GIB,
        "sent_bytes": sum(one["sent_bytes"] for one in report["volumes"]),
    }  # fmt: skip
    wrong = [f"{key} {totals.get(key)}, not {is_}" for key, is_ in expected.items()
             if totals.get(key) != is_]  # fmt: skip
    in_waves = sum(wave["succeeded"] for wave in report["waves"])
    if in_waves != count:
        wrong.append(f"{in_waves} in its waves")
    for one in report["volumes"]:
        copy = copies.get(one["id"])
        if copy is None or one["destination_volume_id"] != copy.id:
            wrong.append(f"{one['name']} is not {one['destination_volume_id']}")
    for one in report["volumes"][:_DIGESTED]:
        path = stage.clouds.east.volume_path(one["id"])
        found = stage.run("digest", str(path), seconds=60).stdout.split()
        if one["digest"] not in found:
            wrong.append(f"{one['name']} has the digest {found}")
    told = "; ".join(wrong) or ", ".join(f"{key} {is_}" for key, is_ in expected.items())
    return Finding(not wrong, f"report, as the clouds have it: {told}")


def of_requests(answered: Counter[tuple[str, str]], volumes: int, *, pooled: bool) -> Finding:
    """What planning and moving have asked of both clouds, all told, for each volume.

    Logging in and looking for versions is a matter of processes, and told apart.
    """
    once = {key for key in answered if key[0] == "keystone" or key[1] == "GET /"}
    asked = Counter({key: count for key, count in answered.items() if key not in once})
    services: Counter[str] = Counter()
    for (service, _), count in asked.items():
        services[service] += count
    each, apart = asked.total() / volumes, sum(answered[key] for key in once) / volumes
    told = ", ".join(f"{name} {count / volumes:.1f}" for name, count in services.most_common())
    most = REQUESTS_MAX[pooled]
    said = f"requests to both clouds, a volume: {each:.1f} of {most} ({told})"
    lines = [
        f"{count / volumes:10.1f} {service:8} {kind}"
        for (service, kind), count in asked.most_common()
        if count / volumes >= _WORTH_TELLING
    ]
    lines.insert(0, f"{said}, and {apart:.1f} for tokens and versions")
    return Finding(each <= most, "\n".join(lines))


if __name__ == "__main__":
    sys.exit(main())
