"""A certificate with its key, as TLS presents it."""

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Credentials:
    """What one party proves its identity with.

    Attributes:
        certificate_pem: One X.509 certificate.
        key_pem: Its private key, PKCS #8, not encrypted; never in a repr.
    """

    certificate_pem: bytes
    key_pem: bytes = field(repr=False)
