"""A self-signed root and the certificates it signs; `authority` says who gets which."""

import hmac
from datetime import datetime, timedelta
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from blockferry.errors import AuthenticationError
from blockferry.identity import Identity, is_migration_id

CERTIFICATE_LIFETIME: Final = timedelta(hours=12)
"""How long a certificate of an agent or a controller is good for."""

ROOT_LIFETIME: Final = timedelta(days=30)
"""How long a migration may be resumed under the same authority."""

CLOCK_SKEW: Final = timedelta(minutes=10)
"""How far an instance's clock may be behind ours: validity begins that much earlier."""

CURVE: Final = ec.SECP256R1()


class Root:
    """A self-signed certificate with its key. Immutable.

    Attributes:
        certificate: The root's own.
        kind: Its common name: which of a migration's roots it is.
        migration_id: Its organization name.

    Raises:
        ValueError: `certificate` is not one of ours, or not for `key`.
    """

    def __init__(self, certificate: x509.Certificate, key: ec.EllipticCurvePrivateKey) -> None:
        if certificate.public_key() != key.public_key():
            raise ValueError("key and certificate differ")
        self.certificate = certificate
        self._key = key
        self.kind = _attribute(certificate.subject, NameOID.COMMON_NAME)
        self.migration_id = _attribute(certificate.subject, NameOID.ORGANIZATION_NAME)

    @classmethod
    def create(cls, migration_id: str, kind: str, now: datetime) -> "Root":
        """A new root, valid for ROOT_LIFETIME from `now`."""
        if not is_migration_id(migration_id):
            raise ValueError(f"not a migration id: {migration_id!r}")
        key = ec.generate_private_key(CURVE)
        name = x509.Name(
            [
                x509.NameAttribute(NameOID.ORGANIZATION_NAME, migration_id),
                x509.NameAttribute(NameOID.COMMON_NAME, kind),
            ]
        )
        builder = (
            _builder(name, name, key.public_key(), now - CLOCK_SKEW, now + ROOT_LIFETIME)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(_key_usage(signs_certificates=True), critical=True)
        )
        return cls(builder.sign(key, hashes.SHA256()), key)

    @property
    def certificate_pem(self) -> bytes:
        """The certificate alone."""
        return self.certificate.public_bytes(serialization.Encoding.PEM)

    def to_pem(self) -> bytes:
        """Key and certificate: a secret."""
        return key_pem(self._key) + self.certificate_pem

    def derive(self, what: str) -> str:
        """64 hexadecimal digits that only who has the key can know; differs by `what`."""
        key = self._key.private_numbers().private_value.to_bytes(32, "big")
        return hmac.new(key, f"blockferry {what}".encode(), "sha256").hexdigest()

    def sign(
        self,
        public_key: ec.EllipticCurvePublicKey,
        identity: Identity,
        *,
        dns_name: str,
        usages: list[x509.ObjectIdentifier],
        now: datetime,
    ) -> bytes:
        """A certificate, in PEM, for `identity`, `dns_name` and the extended key `usages`.

        Valid for CERTIFICATE_LIFETIME from `now`, cut to the root's own end.

        Raises:
            AuthenticationError: AUTHORITY_EXPIRED.
        """
        end = min(now + CERTIFICATE_LIFETIME, self.certificate.not_valid_after_utc)
        if end <= now:
            raise AuthenticationError(
                "AUTHORITY_EXPIRED",
                f"the authority of migration {self.migration_id} ended at {end.isoformat()}: "
                "its agents trust nobody any more; cancel the migration and start it anew",
                migration_id=self.migration_id,
            )
        # A common name has at most 64 characters; the identity is in the URI.
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, identity.role.value)])
        names = [x509.DNSName(dns_name), x509.UniformResourceIdentifier(identity.uri)]
        begin = max(now - CLOCK_SKEW, self.certificate.not_valid_before_utc)
        builder = (
            _builder(subject, self.certificate.subject, public_key, begin, end)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_key_usage(signs_certificates=False), critical=True)
            .add_extension(x509.ExtendedKeyUsage(usages), critical=False)
            .add_extension(x509.SubjectAlternativeName(names), critical=False)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()),
                critical=False,
            )
        )
        certificate = builder.sign(self._key, hashes.SHA256())
        return certificate.public_bytes(serialization.Encoding.PEM)


def _builder(
    subject: x509.Name,
    issuer: x509.Name,
    public_key: ec.EllipticCurvePublicKey,
    begin: datetime,
    end: datetime,
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(public_key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(begin)
        .not_valid_after(end)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public_key), critical=False)
    )


def _key_usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        key_cert_sign=signs_certificates,
        crl_sign=False,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    """The private key in PEM, not encrypted: a secret."""
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )


def _attribute(name: x509.Name, oid: x509.ObjectIdentifier) -> str:
    values = name.get_attributes_for_oid(oid)
    if len(values) != 1 or not isinstance(values[0].value, str):
        raise ValueError("not a root of ours")
    return values[0].value
