"""A certificate with its key, as TLS presents it."""

from msgspec import Struct


class Credentials(Struct, frozen=True):
    """What one party proves its identity with.

    Attributes:
        certificate_pem: One X.509 certificate.
        key_pem: Its private key, PKCS #8, not encrypted; never in a repr.
    """

    certificate_pem: bytes
    key_pem: bytes

    def __repr__(self) -> str:
        return f"Credentials(certificate_pem={self.certificate_pem!r})"
