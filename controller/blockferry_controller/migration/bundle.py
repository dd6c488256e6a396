"""The agent as one file: what user-data carries, so that both sides are one version.

Rules:
* A zipapp: `python3 agent.pyz serve --config FILE` runs it where the locked
  wheels are importable. Inside are `blockferry`, `blockferry_agent` and the
  pure-Python `grpc_health`, as they are installed here.
* The same sources give the same bytes: names are sorted, times fixed.
* Nova's limit is the measure of all things: see `lean`, and the archive is not
  compressed itself but packed whole, since files deflated one by one take half
  as much again (measured: 74 KB against 46 KB, and 26 KB made lean).
"""

import io
import lzma
import zipfile
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Final

from blockferry.errors import InternalError
from blockferry_controller.migration.lean import lean

PACKAGES: Final = ("blockferry", "blockferry_agent", "grpc_health")

_MAIN: Final = "import sys\n\nfrom blockferry_agent.__main__ import main\n\nsys.exit(main())\n"
_TIME: Final = (1980, 1, 1, 0, 0, 0)
"""The earliest a zip file can name."""


@cache
def build_bundle() -> bytes:
    """The zipapp's bytes.

    Raises:
        InternalError: BUNDLE_SOURCE_MISSING when a package is installed without its sources.
    """
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_STORED) as bundle:
        for name, source in sorted({"__main__.py": _MAIN, **_sources()}.items()):
            entry = zipfile.ZipInfo(name, _TIME)
            entry.external_attr = 0o644 << 16
            bundle.writestr(entry, lean(source))
    return archive.getvalue()


@cache
def pack_bundle() -> bytes:
    """`build_bundle()` as an .xz file."""
    return lzma.compress(build_bundle(), preset=9 | lzma.PRESET_EXTREME)


def _sources() -> dict[str, str]:
    """Text of every module, by its path in the bundle."""
    found: dict[str, str] = {}
    for package in PACKAGES:
        root = package_directory(package)
        paths = [path for path in root.rglob("*.py") if "__pycache__" not in path.parts]
        if not paths:
            raise _missing(package)
        for path in paths:
            name = Path(package, path.relative_to(root)).as_posix()
            found[name] = path.read_text(encoding="utf-8")
    return found


def package_directory(package: str) -> Path:
    """Where a package is installed; found without importing it.

    Raises:
        InternalError: BUNDLE_SOURCE_MISSING.
    """
    spec = find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise _missing(package)
    return Path(next(iter(spec.submodule_search_locations)))


def _missing(package: str) -> InternalError:
    return InternalError(
        "BUNDLE_SOURCE_MISSING",
        f"the package {package} is not here as source files, so no instance can be given the "
        "agent; install blockferry again",
        package=package,
    )
