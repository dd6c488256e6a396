"""This machine: can a controller, and the agents of `copy`, work here?"""

import importlib.metadata
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Final

from blockferry.errors import BlockferryError
from blockferry_controller.clouds.openstack.names import cloud_names
from blockferry_controller.doctor.finding import Finding, Findings, examined, fail, ok, warn
from blockferry_controller.engine.state import StateStore

_PYTHON: Final = (3, 10)
_LIBRARIES: Final = (
    "grpcio",
    "protobuf",
    "zstandard",
    "blake3",
    "pyyaml",
    "openstacksdk",
    "dbos",
    "sqlalchemy",
    "cryptography",
    "click",
    "rich",
)
_BLOCK_BYTES: Final = 4096


def examine(state_url: str) -> Findings:
    """Look at the machine; makes the state database when there is none."""
    yield _python()
    yield _libraries()
    yield _openssl()
    yield _clouds_file()
    directory = None
    try:
        store = StateStore.open(state_url)
    except BlockferryError as error:
        yield fail("state", error.message, error)
    else:
        directory = store.directory
        yield _state(store)
        store.close()
    if directory is not None:
        yield direct_io(directory)


def _python() -> Finding:
    version = platform.python_version()
    if sys.version_info[:2] < _PYTHON:
        return fail("python", f"{version}; Blockferry needs {_PYTHON[0]}.{_PYTHON[1]} or newer")
    return ok("python", f"{version} at {sys.executable}")


def _libraries() -> Finding:
    versions, missing = [], []
    for name in _LIBRARIES:
        try:
            versions.append(f"{name} {importlib.metadata.version(name)}")
        except importlib.metadata.PackageNotFoundError:
            missing.append(name)
    if missing:
        return fail("libraries", f"missing: {', '.join(missing)}; install blockferry with pip")
    return ok("libraries", ", ".join(versions))


def _openssl() -> Finding:
    path = shutil.which("openssl")
    if path is None:
        return warn(
            "openssl",
            "no openssl command; migrations do without, but certificates cannot be looked at",
        )
    done = subprocess.run([path, "version"], capture_output=True, text=True, check=False)
    return ok("openssl", done.stdout.strip() or path)


def _clouds_file() -> Finding:
    name = "clouds.yaml"
    try:
        path, clouds = cloud_names()
    except BlockferryError as error:
        return fail(name, error.message, error)
    if not clouds:
        return warn(
            name,
            "names no cloud; `copy` does without, `migrate` needs one: put it into "
            "~/.config/openstack/clouds.yaml or name it in OS_CLIENT_CONFIG_FILE",
        )
    return ok(name, f"{path}: {', '.join(clouds)}")


def _state(store: StateStore) -> Finding:
    """SQLite opens a file that it cannot write; a migration would find out late."""
    if not os.access(store.directory, os.W_OK):
        return fail(
            "state", f"may not write to {store.directory}; choose another place with --state"
        )
    return examined(
        "state", lambda: f"{store.listing.count()} migrations known, in {store.directory}"
    )


def direct_io(directory: Path) -> Finding:
    """Whether files in `directory` can be read past the page cache."""
    name = "direct I/O"
    with tempfile.NamedTemporaryFile(dir=directory, prefix=".doctor-") as file:
        file.write(bytes(_BLOCK_BYTES))
        file.flush()
        try:
            os.close(os.open(file.name, os.O_RDONLY | os.O_DIRECT))
        except OSError as error:
            return warn(
                name,
                f"not in {directory} ({error.strerror}); copies of files there go through the "
                "page cache",
            )
    return ok(name, f"O_DIRECT works in {directory}")
