"""Writes what instances install, with hashes: `make lock`; or shows it: `--for VERSION`.

The agent's direct dependencies are read from pyproject.toml, uv resolves them
for every Python and tells each wheel's file name and hash. Of these the lock
keeps what an instance can be: Linux with glibc, x86_64 or aarch64, CPython 3.10
to 3.14. All others would only fill the user-data, which is limited: 300 hashes
are 9 KiB that nothing compresses, these are a fifth of that.
"""

import argparse
import re
import subprocess
import sys
from pathlib import Path
from typing import Final

from packaging.markers import (
    InvalidMarker,
    Marker,
    UndefinedComparison,
    UndefinedEnvironmentName,
)

ROOT: Final = Path(__file__).resolve().parent.parent
LOCKS: Final = tuple(
    ROOT / "agent" / "blockferry_agent" / name for name in ("requirements.lock", "pip.lock")
)
NAMES: Final = ("grpcio", "protobuf", "zstandard", "blake3")
HEADER: Final = "# Made by `make lock`. Linux (glibc), x86_64 and aarch64, CPython 3.10 to 3.14.\n"

_USABLE: Final = re.compile(
    r".*-(py3-none-any|(cp31[0-4]-cp31[0-4]|cp3\d+-abi3)-[a-z0-9_.]*manylinux\w*_(x86_64|aarch64))"
    r"(\.manylinux\w+)*\.whl"
)
_WHEEL: Final = re.compile(r'url = "[^"]*/([^/"]+\.whl)"[^}]*sha256 = "([0-9a-f]{64})"')


def main() -> None:
    """Write both lists of pins, or print what of them is for one Python."""
    parser = argparse.ArgumentParser(description="Pin what instances install.")
    parser.add_argument("--for", dest="version", help="print the pins for this Python: 3.12")
    version = parser.parse_args().version
    if version:
        for lock in LOCKS:
            print(_pins_for(lock.read_text(encoding="utf-8"), version))  # noqa: T201 - its result
        return
    floors = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    wanted = [_requirement(floors, name) for name in NAMES]
    for lock, names in zip(LOCKS, (wanted, ["pip"]), strict=True):
        lock.write_text(HEADER + _pins(names), encoding="utf-8")


def _pins_for(lock: str, version: str) -> str:
    """Those of the pins that an instance with Python `version` takes, without markers.

    pip would ask the markers of the Python it runs on, whatever --python-version says.
    """
    minor = ".".join(version.split(".")[:2])
    environment = {"python_full_version": f"{minor}.0", "python_version": minor}
    kept = []
    for pin in re.split(r"(?<!\\)\n", lock):
        requirement, _, hashes = pin.partition(" \\\n")
        name, _, marker = requirement.partition(" ; ")
        if hashes and _holds(marker, environment):
            kept.append(f"{name} \\\n{hashes}")
    return "\n".join(kept)


def _holds(marker: str, environment: dict[str, str]) -> bool:
    try:
        return not marker or Marker(marker).evaluate(environment)
    except (InvalidMarker, UndefinedComparison, UndefinedEnvironmentName) as error:
        raise SystemExit(f"lock: the pins are damaged, `make lock` makes them: {error}") from None


def _requirement(pyproject: str, name: str) -> str:
    match = re.search(rf'^  "({name}[<>=~!][^"]*)",$', pyproject, re.MULTILINE)
    if match is None:
        raise SystemExit(f"lock: pyproject.toml has no dependency {name}")
    return match.group(1)


def _pins(wanted: list[str]) -> str:
    resolved = subprocess.run(
        [
            *(sys.executable, "-m", "uv", "pip", "compile", "--quiet", "--universal"),
            *("--python-version", "3.10", "--format", "pylock.toml", "-"),
        ],
        input="\n".join(wanted),
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    return "".join(_pin(package) for package in resolved.split("[[packages]]")[1:])


def _pin(package: str) -> str:
    facts = dict(re.findall(r"^(\w+) = \"(.*)\"$", package, re.MULTILINE))
    usable = sorted({sha for name, sha in _WHEEL.findall(package) if _USABLE.fullmatch(name)})
    if not usable:
        raise SystemExit(f"lock: {facts['name']} {facts['version']} has no wheel for instances")
    # What holds for every Python we support need not be said.
    marker = facts.get("marker", "").replace("python_full_version >= '3.10'", "")
    line = f"{facts['name']}=={facts['version']}" + (f" ; {marker}" if marker else "")
    return " \\\n    ".join([line, *(f"--hash=sha256:{sha}" for sha in usable)]) + "\n"


if __name__ == "__main__":
    main()
