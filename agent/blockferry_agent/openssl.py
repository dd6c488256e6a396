"""Keys and certificates by the `openssl` command.

Instances have it, while the agent brings no X.509 library of its own. Keys are
made in files and never pass through this process's arguments or output.
"""

import os
import re
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

_URI = re.compile(r"URI:([^\s,]+)")


def make_key(path: Path) -> None:
    """Make a P-256 key in a new file of mode 0600."""
    os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
    _run("genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256", "-out", str(path))


def make_request(key: Path, common_name: str) -> bytes:
    """A PKCS #10 request in PEM, signed with the key."""
    with tempfile.NamedTemporaryFile("w", suffix=".cnf") as config:
        config.write(_REQUEST_CONFIG.format(name=common_name))
        config.flush()
        return _run("req", "-new", "-sha256", "-key", str(key), "-config", config.name)


def public_key_of_certificate(certificate_pem: bytes) -> bytes:
    """The public key in PEM. Raises PreconditionError/IDENTITY_REFUSED if unreadable."""
    return _read_certificate(certificate_pem, "-pubkey", "-noout")


def public_key_of_key(key: Path) -> bytes:
    """The public key in PEM that belongs to a private one."""
    return _run("pkey", "-in", str(key), "-pubout")


def uris_of_certificate(certificate_pem: bytes) -> list[str]:
    """The subjectAltName URIs."""
    text = _read_certificate(certificate_pem, "-noout", "-ext", "subjectAltName")
    return _URI.findall(text.decode("utf-8", "replace"))


def is_signed_by(certificate_pem: bytes, authority: Path) -> bool:
    """Whether the authority signed it.

    Its dates are left to the peers, whose clocks count; this instance's own may
    be wrong.
    """
    with tempfile.NamedTemporaryFile(suffix=".crt") as file:
        file.write(certificate_pem)
        file.flush()
        done = _call("verify", "-no_check_time", "-CAfile", str(authority), "-no-CApath", file.name)
    return done.returncode == 0


def _read_certificate(certificate_pem: bytes, *arguments: str) -> bytes:
    done = _call("x509", *arguments, stdin=certificate_pem)
    if done.returncode != 0:
        raise PreconditionError(
            "IDENTITY_REFUSED", "The certificate given is not X.509 in PEM; sign the request again."
        )
    return done.stdout


def _run(*arguments: str) -> bytes:
    done = _call(*arguments)
    if done.returncode != 0:
        told = done.stderr.decode("utf-8", "replace").strip().splitlines()
        raise InternalError(
            "OPENSSL_FAILED", f"openssl {arguments[0]} failed: {told[0] if told else 'no reason'}"
        )
    return done.stdout


def _call(*arguments: str, stdin: bytes = b"") -> "subprocess.CompletedProcess[bytes]":
    try:
        return subprocess.run(
            ["openssl", *arguments], input=stdin, capture_output=True, timeout=_SECONDS, check=False
        )
    except FileNotFoundError as error:
        raise PreconditionError(
            "OPENSSL_MISSING", "The command openssl is missing in this instance; install it."
        ) from error
    except subprocess.TimeoutExpired as error:
        raise InternalError("OPENSSL_FAILED", f"openssl {arguments[0]} hangs") from error
