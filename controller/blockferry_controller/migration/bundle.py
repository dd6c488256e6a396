"""The agent as user-data carries it, so that controller and agents are one version.

Rules:
* What a stock image gets in /opt/blockferry: the directory `agent`, which
  `python3 /opt/blockferry/agent serve --config FILE` runs (an unpacked zipapp),
  the installer and the two lists of pins. In `agent` are `blockferry`,
  `blockferry_agent` and the pure-Python `grpc_health`, as they are installed here.
* Nova's limit is the measure of all things. The sources go without what a
  program does not need (see `lean`), in one JSON object packed whole. Measured on
  6,600 lines of agent: a zipapp 95 KB, packed whole by xz 55 KB, this 42 KB.
* The same sources give the same bytes.
"""

import bz2
import json
import re
from functools import cache
from importlib.util import find_spec
from pathlib import Path, PurePosixPath
from typing import Final

from blockferry.errors import InternalError
from blockferry_controller.migration.lean import lean

PACKAGES: Final = ("blockferry", "blockferry_agent", "grpc_health")
LOCKS: Final = ("requirements.lock", "pip.lock")

UNPACK: Final = (
    "import bz2,json,pathlib,sys\n"
    "at=pathlib.Path(sys.argv[1])\n"
    "for name,text in json.loads(bz2.decompress((at/'agent.bz2').read_bytes())).items():\n"
    " path=at/name\n"
    " path.parent.mkdir(parents=True,exist_ok=True)\n"
    " path.write_text(text,encoding='utf-8')\n"
)
"""Program that unpacks `agent.bz2` beside itself: argument 1 is the directory."""

_MAIN: Final = "import sys\nfrom blockferry_agent.__main__ import main\nsys.exit(main())\n"

_LEFT_OUT: Final = {
    "blockferry_agent/memory_device.py": None,  # for tests and benchmarks
    "grpc_health/v1/_async.py": "",  # imported by its sibling, for servers that are not ours
}
"""Modules that an instance does not get, or gets empty."""

_EXPERIMENTAL: Final = re.compile(
    r"^ # This class is part of an EXPERIMENTAL API\.\nclass .*?(?=^\S|\Z)",
    re.MULTILINE | re.DOTALL,
)


@cache
def bundle_files() -> dict[str, str]:
    """Text of every file of /opt/blockferry, by its path there.

    Raises:
        InternalError: BUNDLE_SOURCE_MISSING when a package is installed without its
            sources, CLOUD_INIT_MISSING when the installer is not there.
    """
    locks = package_directory("blockferry_agent")
    return {
        "install.py": lean(cloud_init_file("install.py")),
        **{name: (locks / name).read_text(encoding="utf-8") for name in LOCKS},
        "agent/__main__.py": _MAIN,
        **{f"agent/{name}": lean(source) for name, source in sorted(_sources().items())},
    }


@cache
def pack_bundle() -> bytes:
    """`bundle_files()` as one bz2 file."""
    return bz2.compress(json.dumps(bundle_files(), separators=(",", ":")).encode())


def cloud_init_file(name: str) -> str:
    """A file of cloud-init/: inside the installed package, or of the checkout it runs from.

    Raises:
        InternalError: CLOUD_INIT_MISSING.
    """
    package = Path(__file__).resolve().parents[1]
    for directory in (package / "cloud_init", package.parents[1] / "cloud-init"):
        path = directory / name
        if path.is_file():
            return path.read_text(encoding="utf-8")
    raise InternalError(
        "CLOUD_INIT_MISSING", f"{name} is missing from this installation; install it again"
    )


def package_directory(package: str) -> Path:
    """Where a package is installed; found without importing it.

    Raises:
        InternalError: BUNDLE_SOURCE_MISSING.
    """
    spec = find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise _missing(package)
    return Path(next(iter(spec.submodule_search_locations)))


def _sources() -> dict[str, str]:
    """Text of every module an instance needs, by its path."""
    found: dict[str, str] = {}
    for package in PACKAGES:
        root = package_directory(package)
        texts = {
            str(PurePosixPath(package, path.relative_to(root))): path.read_text(encoding="utf-8")
            for path in root.rglob("*.py")
            if "__pycache__" not in path.parts
        }
        if not texts:
            raise _missing(package)
        found |= texts
    for name in found:
        if name.endswith("_pb2_grpc.py"):
            # grpc_tools adds a class of static methods for an API that we do not use.
            found[name] = _EXPERIMENTAL.sub("", found[name])
    for name, instead in _LEFT_OUT.items():
        if instead is None:
            found.pop(name, None)
        else:
            found[name] = instead
    return found


def _missing(package: str) -> InternalError:
    return InternalError(
        "BUNDLE_SOURCE_MISSING",
        f"the package {package} is not here as source files, so no instance can be given the "
        "agent; install blockferry again",
        package=package,
    )
