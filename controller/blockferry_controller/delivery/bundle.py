"""The agent as one file, so that controller and agents are always one version.

Rules:
* A zipapp: `python3 agent.pyz serve --config FILE` runs it where the locked
  wheels can be imported. In it are `blockferry`, `blockferry_agent` and the
  pure-Python `grpc_health`, as they are installed here: source only.
* The same sources give the same bytes on every controller: names are sorted,
  times fixed, nothing is compressed (zlib's output differs by its version).
  An instance knows the digest before it gets the file.
"""

import hashlib
import io
import zipfile
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Final

from blockferry.errors import InternalError

PACKAGES: Final = ("blockferry", "blockferry_agent", "grpc_health")

_MAIN: Final = b"from blockferry_agent.__main__ import program\n\nprogram()\n"
_EARLIEST: Final = (1980, 1, 1, 0, 0, 0)
"""The first moment that a zip file can name."""


@cache
def build_bundle() -> bytes:
    """The zipapp's bytes.

    Raises:
        InternalError: BUNDLE_SOURCE_MISSING when a package is installed without its sources.
    """
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_STORED) as bundle:
        for name, source in sorted({"__main__.py": _MAIN, **_sources()}.items()):
            entry = zipfile.ZipInfo(name, _EARLIEST)
            entry.external_attr = 0o644 << 16
            bundle.writestr(entry, source)
    return packed.getvalue()


@cache
def bundle_digest() -> str:
    """SHA-256 of `build_bundle()` in hexadecimal: all that a bare Python can check."""
    return hashlib.sha256(build_bundle()).hexdigest()


def package_directory(package: str) -> Path:
    """Where a package is installed; found without importing it.

    Raises:
        InternalError: BUNDLE_SOURCE_MISSING.
    """
    spec = find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise _missing(package)
    return Path(next(iter(spec.submodule_search_locations)))


def _sources() -> dict[str, bytes]:
    """Text of every module, by its path in the bundle."""
    found: dict[str, bytes] = {}
    for package in PACKAGES:
        root = package_directory(package)
        modules = {
            Path(package, path.relative_to(root)).as_posix(): path.read_bytes()
            for path in root.rglob("*.py")
            if "__pycache__" not in path.parts
        }
        if not modules:
            raise _missing(package)
        found |= modules
    return found


def _missing(package: str) -> InternalError:
    return InternalError(
        "BUNDLE_SOURCE_MISSING",
        f"the package {package} is not here as source files, so no instance can be given the "
        "agent; install blockferry again",
        package=package,
    )
