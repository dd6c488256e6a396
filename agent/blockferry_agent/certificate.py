"""A certificate, tried as peers will try it: in a TLS handshake of this process with itself.

In memory, and with Python's own `ssl`: the agent brings no X.509 library, and whatever a
handshake proves need not be proven in another way.
"""

import ssl
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Final

from blockferry.errors import PreconditionError

_NO_CHECK_TIME: Final = ssl.VerifyFlags(0x200000)
"""X509_V_FLAG_NO_CHECK_TIME of OpenSSL's x509_vfy.h, to which `ssl` gives no name."""


def shown_uris(certificate_pem: bytes, key: Path, authority: Path) -> list[str]:
    """What peers who trust `authority` see of a server with this certificate and key.

    Its dates are left to them: this instance's own clock may be wrong.

    Returns:
        The URIs of its subjectAltName.

    Raises:
        PreconditionError: IDENTITY_REFUSED: unreadable, not for this key, or nothing that
            they would trust as a server's.
    """
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    with tempfile.NamedTemporaryFile(suffix=".crt") as file:
        file.write(certificate_pem)
        file.flush()
        try:
            server.load_cert_chain(file.name, key)
        except ssl.SSLError as error:
            if error.reason in {"KEY_VALUES_MISMATCH", "KEY_TYPE_MISMATCH"}:
                raise refused("it is not for the key of the last signing request") from error
            raise refused("it is not X.509 in PEM") from error
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client.check_hostname = False
    client.verify_flags |= _NO_CHECK_TIME
    client.load_verify_locations(authority)
    try:
        return _met(client, server)
    except ssl.SSLCertVerificationError as error:
        raise refused("the migration's authority has not signed it for a server") from error


def _met(client: ssl.SSLContext, server: ssl.SSLContext) -> list[str]:
    """The URIs that the client sees of the server."""
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    served = server.wrap_bio(to_server, to_client, server_side=True)
    dialled = client.wrap_bio(to_client, to_server)
    for side in (dialled, served):
        with suppress(ssl.SSLWantReadError):
            side.do_handshake()
    # TLS 1.3: with the server's one flight the client has seen all that it shows.
    dialled.do_handshake()
    names = (dialled.getpeercert() or {}).get("subjectAltName", ())
    return [str(name[1]) for name in names if name[0] == "URI"]


def refused(why: str) -> PreconditionError:
    """IDENTITY_REFUSED, and why."""
    return PreconditionError(
        "IDENTITY_REFUSED", f"The certificate given is refused: {why}. Ask for a new request."
    )
