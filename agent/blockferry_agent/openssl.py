"""Keys and certificates by the `openssl` command.

Instances have it, while the agent brings no X.509 library of its own. Keys are
made in files and never pass through this process's arguments or output.
"""

import os
import re
import subprocess
import tempfile
from dataclasses import dataclass
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

_URI: Final = re.compile(r"URI:([^\s,]+)")
_PUBLIC_KEY: Final = re.compile(
    rb"-----BEGIN PUBLIC KEY-----\n[A-Za-z0-9+/=\n]+-----END PUBLIC KEY-----\n"
)


def make_request(key: Path, common_name: str) -> tuple[bytes, bytes]:
    """Make a P-256 key in a new file of mode 0600, and a request signed with it.

    Returns:
        The PKCS #10 request and the public key, both in PEM.
    """
    os.close(os.open(key, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
    with tempfile.NamedTemporaryFile("w", suffix=".cnf") as config:
        config.write(_REQUEST_CONFIG.format(name=common_name))
        config.flush()
        told = _run(
            "req", "-new", "-sha256", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256",
            "-nodes", "-keyout", str(key), "-config", config.name, "-pubkey",
        )  # fmt: skip
    public_key = _public_key(told)
    return told.replace(public_key, b""), public_key


@dataclass(frozen=True)
class Certificate:
    """What of a certificate is looked at.

    Attributes:
        public_key: In PEM.
        uris: Of the subjectAltName.
    """

    public_key: bytes
    uris: list[str]


def read_certificate(certificate_pem: bytes) -> Certificate:
    """What it says. Raises PreconditionError/IDENTITY_REFUSED if unreadable."""
    done = _call("x509", "-noout", "-pubkey", "-ext", "subjectAltName", stdin=certificate_pem)
    if done.returncode != 0:
        raise PreconditionError(
            "IDENTITY_REFUSED", "The certificate given is not X.509 in PEM; sign the request again."
        )
    names = done.stdout.decode("utf-8", "replace")
    return Certificate(_public_key(done.stdout), _URI.findall(names))


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


def _public_key(told: bytes) -> bytes:
    """The public key among what a command printed."""
    found = _PUBLIC_KEY.search(told)
    if found is None:
        raise InternalError("OPENSSL_FAILED", "openssl printed no public key")
    return found.group()


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
