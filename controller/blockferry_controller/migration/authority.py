"""The certificate authority of one migration, kept by its controller.

Rules:
* Two roots. The *bootstrap* root signs only the server certificate that
  cloud-init carries, key included, through the cloud's API: enough to find the
  right agent once, and good for nothing else, since no one trusts that root
  for clients. The *migration* root signs the controller, and the agents' own
  keys, which the controller never sees.
* A pair that a fleet's volumes share has an authority as if it were a migration.
* A certificate lives hours. Who needs a connection for longer signs again.
* From a signing request only the public key is taken: what a name may be is
  decided here, never by who asks.
* Keys are EC P-256: gRPC's TLS library refuses Ed25519 certificates by default.
"""

from datetime import datetime, timezone
from typing import Final

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID

from blockferry.errors import AuthenticationError, IntegrityError
from blockferry.identity import Identity, Role
from blockferry_controller.agents.credentials import Credentials
from blockferry_controller.migration.root import CERTIFICATE_LIFETIME, CURVE, Root, key_pem

__all__ = ["RENEW_AFTER", "Authority", "Credentials", "fingerprint"]

RENEW_AFTER: Final = CERTIFICATE_LIFETIME / 3
"""Age at which a long migration signs again: two more tries fit before the end."""

_KINDS: Final = ("bootstrap root", "migration root")
"""Common names of the roots, in the order of the text that `to_pem` makes."""


class Authority:
    """Both roots of one migration. Immutable, thread-safe; its repr shows no key.

    Methods that sign take `now`, which defaults to the system's clock.
    """

    def __init__(self, bootstrap: Root, migration: Root) -> None:
        self._bootstrap = bootstrap
        self._migration = migration

    @classmethod
    def create(cls, migration_id: str, now: datetime | None = None) -> "Authority":
        """Make new roots for a migration; its id is as blockferry.identity says."""
        begin = now or _now()
        return cls(*(Root.create(migration_id, kind, begin) for kind in _KINDS))

    @classmethod
    def from_pem(cls, pem: bytes) -> "Authority":
        """Inverse of `to_pem`.

        Raises:
            IntegrityError: AUTHORITY_INVALID; the message holds nothing of `pem`.
        """
        try:
            certificates = x509.load_pem_x509_certificates(pem)
            keys = _private_keys(pem)
            roots = [Root(*pair) for pair in zip(certificates, keys, strict=True)]
            if [root.kind for root in roots] != list(_KINDS) or len(_names(roots)) != 1:
                raise ValueError("not the two roots")  # noqa: TRY301 - one way out
        except (ValueError, UnsupportedAlgorithm) as error:
            raise IntegrityError(
                "AUTHORITY_INVALID",
                "the migration's stored authority cannot be read; "
                "cancel the migration and start it anew",
            ) from error
        return cls(*roots)

    def to_pem(self) -> bytes:
        """Keys and certificates as one text; whoever has it is the authority: keep it 0600."""
        return self._bootstrap.to_pem() + self._migration.to_pem()

    def __repr__(self) -> str:
        return f"Authority({self.migration_id!r}, expires_at={self.expires_at.isoformat()})"

    @property
    def migration_id(self) -> str:
        """The migration both roots are for."""
        return self._migration.migration_id

    @property
    def expires_at(self) -> datetime:
        """When the roots, and all they signed, end; with a time zone (UTC)."""
        return self._migration.certificate.not_valid_after_utc

    @property
    def bootstrap_root_pem(self) -> bytes:
        """What the controller trusts for the first contact, and only for that."""
        return self._bootstrap.certificate_pem

    @property
    def migration_root_pem(self) -> bytes:
        """What agents trust for every client, and the controller after adoption."""
        return self._migration.certificate_pem

    @property
    def fingerprint(self) -> str:
        """What tells this authority from every other; no secret."""
        return fingerprint(self._migration.certificate)

    def bootstrap(self, role: Role, epoch: int, now: datetime | None = None) -> Credentials:
        """The server certificate and key that cloud-init carries to an agent."""
        identity = Identity(self.migration_id, role, epoch)
        key = ec.generate_private_key(CURVE)
        certificate = self._bootstrap.sign(
            key.public_key(),
            identity,
            dns_name=identity.bootstrap_server_name,
            usages=[ExtendedKeyUsageOID.SERVER_AUTH],
            now=now or _now(),
        )
        return Credentials(certificate, key_pem(key))

    def tunnel_hello(self, role: Role) -> str:
        """The first line of an agent that dials us, without its end; no secret of worth."""
        ticket = self._bootstrap.derive(f"tunnel {role.value}")
        return f"blockferry-tunnel {self.migration_id} {role.value} {ticket}"

    def controller(self, epoch: int, now: datetime | None = None) -> Credentials:
        """A fresh key and client certificate for the controller of this epoch."""
        key = ec.generate_private_key(CURVE)
        identity = Identity(self.migration_id, Role.CONTROLLER, epoch)
        return Credentials(self._sign(key.public_key(), identity, now), key_pem(key))

    def sign(
        self, signing_request_pem: bytes, role: Role, epoch: int, now: datetime | None = None
    ) -> bytes:
        """The certificate, in PEM, of an agent that made its key itself.

        Raises:
            AuthenticationError: SIGNING_REQUEST_INVALID: unreadable, not signed by its
                own key, or not a P-256 key.
        """
        public_key = _requested_key(signing_request_pem)
        return self._sign(public_key, Identity(self.migration_id, role, epoch), now)

    def _sign(
        self, public_key: ec.EllipticCurvePublicKey, identity: Identity, now: datetime | None
    ) -> bytes:
        usages = [ExtendedKeyUsageOID.CLIENT_AUTH]
        if identity.role is not Role.CONTROLLER:
            usages.append(ExtendedKeyUsageOID.SERVER_AUTH)
        return self._migration.sign(
            public_key,
            identity,
            dns_name=identity.server_name,
            usages=usages,
            now=now or _now(),
        )


def fingerprint(certificate: x509.Certificate) -> str:
    """`sha256:<hex>` of a certificate, as every tool computes it."""
    return f"sha256:{certificate.fingerprint(hashes.SHA256()).hex()}"


def _requested_key(signing_request_pem: bytes) -> ec.EllipticCurvePublicKey:
    try:
        request = x509.load_pem_x509_csr(signing_request_pem)
        key = request.public_key()
        genuine = request.is_signature_valid
    except (ValueError, UnsupportedAlgorithm) as error:
        raise _refused("it cannot be read") from error
    if not isinstance(key, ec.EllipticCurvePublicKey) or key.curve.name != CURVE.name:
        raise _refused("its key is not an EC P-256 key")
    if not genuine:
        raise _refused("it is not signed by its own key")
    return key


def _refused(why: str) -> AuthenticationError:
    return AuthenticationError(
        "SIGNING_REQUEST_INVALID", f"refused to sign the agent's certificate request: {why}"
    )


def _private_keys(pem: bytes) -> list[ec.EllipticCurvePrivateKey]:
    begin = b"-----BEGIN PRIVATE KEY-----"
    keys = []
    for part in pem.split(begin)[1:]:
        key = serialization.load_pem_private_key(begin + part, password=None)
        if not isinstance(key, ec.EllipticCurvePrivateKey):
            raise ValueError("not an EC key")  # noqa: TRY004 - from_pem's one way out
        keys.append(key)
    return keys


def _names(roots: list[Root]) -> set[str]:
    return {root.migration_id for root in roots}


def _now() -> datetime:
    return datetime.now(timezone.utc)
