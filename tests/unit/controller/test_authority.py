"""The authority of a migration: who may be what, for how long."""

import base64
import re
import subprocess
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.x509.oid import NameOID
from cryptography.x509.verification import PolicyBuilder, Store, VerificationError

from blockferry.errors import AuthenticationError, IntegrityError
from blockferry.identity import Identity, Role
from blockferry_controller.migration.authority import RENEW_AFTER, Authority

NOW = datetime(2026, 11, 22, 12, 0, tzinfo=timezone.utc)


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority.create("m-1", NOW)


def signing_request(
    key: ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey | None = None,
    name: str = "whatever it says",
) -> bytes:
    signer = key or ec.generate_private_key(ec.SECP256R1())
    builder = x509.CertificateSigningRequestBuilder(
        x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    ).add_extension(
        x509.SubjectAlternativeName(
            [x509.UniformResourceIdentifier("blockferry:m-2:controller:9")]
        ),
        critical=False,
    )
    algorithm = hashes.SHA256() if isinstance(signer, ec.EllipticCurvePrivateKey) else None
    return builder.sign(signer, algorithm).public_bytes(serialization.Encoding.PEM)


def verify_as_server(root_pem: bytes, certificate_pem: bytes, name: str, now: datetime) -> None:
    store = Store(x509.load_pem_x509_certificates(root_pem))
    verifier = PolicyBuilder().store(store).time(now).build_server_verifier(x509.DNSName(name))
    verifier.verify(x509.load_pem_x509_certificate(certificate_pem), [])


def verify_as_client(root_pem: bytes, certificate_pem: bytes, now: datetime) -> list[str]:
    store = Store(x509.load_pem_x509_certificates(root_pem))
    verified = (
        PolicyBuilder()
        .store(store)
        .time(now)
        .build_client_verifier()
        .verify(x509.load_pem_x509_certificate(certificate_pem), [])
    )
    assert verified.subjects is not None
    return [
        name.value for name in verified.subjects if isinstance(name, x509.UniformResourceIdentifier)
    ]


def test_the_bootstrap_certificate_is_a_server_under_the_bootstrap_root_only(
    authority: Authority,
) -> None:
    credentials = authority.bootstrap(Role.SINK, 1, NOW)
    identity = Identity("m-1", Role.SINK, 1)
    verify_as_server(
        authority.bootstrap_root_pem,
        credentials.certificate_pem,
        identity.bootstrap_server_name,
        NOW,
    )
    with pytest.raises(VerificationError):
        verify_as_server(
            authority.bootstrap_root_pem, credentials.certificate_pem, identity.server_name, NOW
        )
    with pytest.raises(VerificationError):
        verify_as_server(
            authority.migration_root_pem,
            credentials.certificate_pem,
            identity.bootstrap_server_name,
            NOW,
        )
    with pytest.raises(VerificationError):
        verify_as_client(authority.bootstrap_root_pem, credentials.certificate_pem, NOW)


def test_the_controller_is_a_client_only(authority: Authority) -> None:
    credentials = authority.controller(7, NOW)
    uris = verify_as_client(authority.migration_root_pem, credentials.certificate_pem, NOW)
    assert uris == ["blockferry:m-1:controller:7"]
    name = Identity("m-1", Role.CONTROLLER, 7).server_name
    with pytest.raises(VerificationError):
        verify_as_server(authority.migration_root_pem, credentials.certificate_pem, name, NOW)


@pytest.mark.parametrize("role", [Role.SOURCE, Role.SINK])
def test_an_agents_own_key_gets_exactly_the_name_decided_here(
    authority: Authority, role: Role
) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    certificate_pem = authority.sign(signing_request(key), role, 3, NOW)
    identity = Identity("m-1", role, 3)
    verify_as_server(authority.migration_root_pem, certificate_pem, identity.server_name, NOW)
    assert verify_as_client(authority.migration_root_pem, certificate_pem, NOW) == [identity.uri]
    certificate = x509.load_pem_x509_certificate(certificate_pem)
    assert certificate.public_key() == key.public_key()
    assert certificate.subject.rfc4514_string() == f"CN={role.value}"


def test_openssl_makes_requests_that_are_signed(authority: Authority, tmp_path: Path) -> None:
    made = subprocess.run(
        [
            *("openssl", "req", "-new", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"),
            *("-nodes", "-keyout", str(tmp_path / "key"), "-subj", "/CN=sink.m-1"),
        ],
        check=True,
        capture_output=True,
        timeout=20,
    )
    certificate_pem = authority.sign(made.stdout, Role.SINK, 1, NOW)
    assert verify_as_client(authority.migration_root_pem, certificate_pem, NOW)


@pytest.mark.parametrize(
    ("after", "good"),
    [
        pytest.param(timedelta(minutes=-9), True, id="clock-behind-by-less-than-the-allowance"),
        pytest.param(timedelta(minutes=-11), False, id="clock-behind-by-more"),
        pytest.param(timedelta(hours=11), True, id="before-the-end"),
        pytest.param(timedelta(hours=13), False, id="after-the-end"),
    ],
)
def test_certificates_live_hours(authority: Authority, after: timedelta, good: bool) -> None:
    certificate_pem = authority.controller(1, NOW).certificate_pem
    if good:
        verify_as_client(authority.migration_root_pem, certificate_pem, NOW + after)
    else:
        with pytest.raises(VerificationError):
            verify_as_client(authority.migration_root_pem, certificate_pem, NOW + after)
    assert timedelta() < 2 * RENEW_AFTER < timedelta(hours=12)


def test_another_migrations_root_verifies_nothing_of_ours(authority: Authority) -> None:
    other = Authority.create("m-1", NOW)
    certificate_pem = authority.controller(1, NOW).certificate_pem
    with pytest.raises(VerificationError):
        verify_as_client(other.migration_root_pem, certificate_pem, NOW)


def test_an_authority_at_its_end_signs_nothing(authority: Authority) -> None:
    late = NOW + timedelta(days=29, hours=20)
    certificate_pem = authority.controller(1, late).certificate_pem
    assert x509.load_pem_x509_certificate(certificate_pem).not_valid_after_utc == (
        authority.expires_at
    )
    with pytest.raises(AuthenticationError) as caught:
        authority.controller(1, NOW + timedelta(days=31))
    assert caught.value.reason == "AUTHORITY_EXPIRED"


def tampered(pem: bytes) -> bytes:
    request = x509.load_pem_x509_csr(pem).public_bytes(serialization.Encoding.DER)
    other = request.replace(b"whatever", b"whatelse")
    return _pem(other)


def _pem(der: bytes) -> bytes:
    return (
        b"-----BEGIN CERTIFICATE REQUEST-----\n"
        + base64.encodebytes(der)
        + b"-----END CERTIFICATE REQUEST-----\n"
    )


@pytest.mark.parametrize(
    "request_pem",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b"-----BEGIN CERTIFICATE REQUEST-----\nAAAA\n", id="garbage"),
        pytest.param(_pem(b"\x30\x03\x02\x01\x01"), id="not-a-request"),
        pytest.param(tampered(signing_request()), id="changed-after-signing"),
        pytest.param(signing_request(ed25519.Ed25519PrivateKey.generate()), id="ed25519"),
        pytest.param(signing_request(ec.generate_private_key(ec.SECP384R1())), id="p-384"),
    ],
)
def test_bad_requests_are_refused(authority: Authority, request_pem: bytes) -> None:
    with pytest.raises(AuthenticationError) as caught:
        authority.sign(request_pem, Role.SINK, 1, NOW)
    assert caught.value.reason == "SIGNING_REQUEST_INVALID"


def test_it_survives_being_stored(authority: Authority) -> None:
    again = Authority.from_pem(authority.to_pem())
    assert again.migration_id == "m-1"
    assert again.expires_at == authority.expires_at
    assert again.bootstrap_root_pem == authority.bootstrap_root_pem
    verify_as_client(authority.migration_root_pem, again.controller(2, NOW).certificate_pem, NOW)


def swapped(pem: bytes) -> bytes:
    parts = re.findall(rb"-----BEGIN PRIVATE.*?END CERTIFICATE-----\n", pem, re.DOTALL)
    return b"".join(reversed(parts))


def mixed(pem: bytes) -> bytes:
    ours = re.findall(rb"-----BEGIN PRIVATE.*?END CERTIFICATE-----\n", pem, re.DOTALL)
    other = Authority.create("m-2", NOW).to_pem()
    theirs = re.findall(rb"-----BEGIN PRIVATE.*?END CERTIFICATE-----\n", other, re.DOTALL)
    return bytes(ours[0] + theirs[1])


@pytest.mark.parametrize(
    "damage",
    [
        pytest.param(lambda pem: b"", id="empty"),
        pytest.param(lambda pem: pem[: len(pem) // 2], id="cut"),
        pytest.param(lambda pem: pem.replace(b"M", b"N", 40), id="garbled"),
        pytest.param(swapped, id="roots-exchanged"),
        pytest.param(mixed, id="roots-of-two-migrations"),
    ],
)
def test_a_damaged_store_is_told_without_its_content(authority: Authority, damage: object) -> None:
    assert callable(damage)
    with pytest.raises(IntegrityError) as caught:
        Authority.from_pem(damage(authority.to_pem()))
    assert caught.value.reason == "AUTHORITY_INVALID"
    assert "PRIVATE" not in str(caught.value)


def test_nothing_secret_in_a_repr(authority: Authority) -> None:
    credentials = authority.controller(1, NOW)
    for text in (repr(authority), repr(credentials)):
        assert "PRIVATE" not in text
        assert "m-1" in text or "certificate_pem" in text
