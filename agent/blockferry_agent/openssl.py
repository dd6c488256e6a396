"""Keys by the `openssl` command.

Instances have it, while the agent brings no X.509 library of its own. Keys are
made in files and never pass through this process's arguments or output.
"""

import os
import subprocess
import tempfile
from pathlib import Path
from typing import Final

from blockferry.errors import InternalError, PreconditionError

_SECONDS: Final = 30.0

# `openssl req` wants a configuration even where nothing of it is used.
_REQUEST_CONFIG: Final = """\
[req]
distinguished_name = subject
prompt = no
[subject]
CN = {name}
"""


def make_request(key: Path, common_name: str) -> bytes:
    """Make a P-256 key in a new file of mode 0600; returns a PKCS #10 request for it, in PEM."""
    os.close(os.open(key, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
    with tempfile.NamedTemporaryFile("w", suffix=".cnf") as config:
        config.write(_REQUEST_CONFIG.format(name=common_name))
        config.flush()
        return _run(
            "req", "-new", "-sha256", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256",
            "-nodes", "-keyout", str(key), "-config", config.name,
        )  # fmt: skip


def _run(*arguments: str) -> bytes:
    try:
        done = subprocess.run(
            ["openssl", *arguments],
            stdin=subprocess.DEVNULL, capture_output=True, timeout=_SECONDS, check=False,
        )  # fmt: skip
    except FileNotFoundError as error:
        raise PreconditionError(
            "OPENSSL_MISSING", "The command openssl is missing in this instance; install it."
        ) from error
    except subprocess.TimeoutExpired as error:
        raise InternalError("OPENSSL_FAILED", f"openssl {arguments[0]} hangs") from error
    if done.returncode != 0:
        told = done.stderr.decode("utf-8", "replace").strip().splitlines()
        raise InternalError(
            "OPENSSL_FAILED", f"openssl {arguments[0]} failed: {told[0] if told else 'no reason'}"
        )
    return done.stdout
