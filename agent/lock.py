"""Writes what instances install, with hashes: `make lock`.

The agent's direct dependencies are read from pyproject.toml, uv resolves them
for every Python and tells each wheel's file name and hash. Of these the lock
keeps what an instance can be: Linux with glibc, x86_64 or aarch64, CPython 3.10
to 3.14. All others would only fill the user-data, which is limited: 300 hashes
are 9 KiB that nothing compresses, these are a fifth of that.
"""

import re
import subprocess
import sys
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parent.parent
PACKAGE: Final = ROOT / "agent" / "blockferry_agent"
NAMES: Final = ("grpcio", "protobuf", "zstandard", "blake3")
HEADER: Final = "# Made by `make lock`. Linux (glibc), x86_64 and aarch64, CPython 3.10 to 3.14.\n"

_USABLE: Final = re.compile(
    r".*-(py3-none-any|(cp31[0-4]-cp31[0-4]|cp3\d+-abi3)-[a-z0-9_.]*manylinux\w*_(x86_64|aarch64))"
    r"(\.manylinux\w+)*\.whl"
)
_WHEEL: Final = re.compile(r'url = "[^"]*/([^/"]+\.whl)"[^}]*sha256 = "([0-9a-f]{64})"')


def main() -> None:
    """Write both lists of pins."""
    floors = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    wanted = [_requirement(floors, name) for name in NAMES]
    (PACKAGE / "requirements.lock").write_text(HEADER + _pins(wanted), encoding="utf-8")
    (PACKAGE / "pip.lock").write_text(HEADER + _pins(["pip"]), encoding="utf-8")


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
