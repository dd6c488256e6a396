"""Signing a report with its migration's authority, and finding what was changed since.

    signature
      algorithm     ALGORITHM
      signed_at     when, UTC
      digests       SHA-256 of each other name of the report, by name
      certificate   of the controller that signed, issued by `authority`
      authority     the root made for this one migration
      value         ECDSA over all of the above, in Base64

Rules:
* What is signed is JSON in one spelling: sorted names, no spaces, ASCII. Another
  spelling of the same values is the same report.
* The digests tell which part was changed; the signature, that they were not.
* The authority proves nothing about itself: anybody can make one. That it is the
  migration's own is known where the migration is known, by its fingerprint.
"""

import base64
import hashlib
import json
from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any, Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from msgspec import Struct

from blockferry.identity import Role, parse_uri
from blockferry_controller.migration.authority import Authority, fingerprint

ALGORITHM: Final = "ecdsa-p256-sha256"
_DOMAIN: Final = b"blockferry-report/1\n"
"""Nothing else that the key signs begins so."""
_NAMES: Final = ("algorithm", "signed_at", "digests", "certificate", "authority", "value")


class Verdict(Struct, frozen=True):
    """What a check found.

    Attributes:
        problems: What is wrong, a sentence each; empty when the report is as it was signed.
        signed_at: As the signature says; empty when it cannot be read.
        authority: Fingerprint of the authority that signed, `sha256:<hex>`; likewise.
    """

    problems: tuple[str, ...]
    signed_at: str = ""
    authority: str = ""


def sign(
    report: Mapping[str, Any], authority: Authority, epoch: int, now: datetime
) -> dict[str, Any]:
    """The report with its signature.

    Raises:
        AuthenticationError: AUTHORITY_EXPIRED.
    """
    body = {name: value for name, value in report.items() if name != "signature"}
    credentials = authority.controller(epoch, now)
    key = serialization.load_pem_private_key(credentials.key_pem, password=None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    signature = {
        "algorithm": ALGORITHM,
        "signed_at": now.isoformat(timespec="seconds"),
        "digests": {name: _digest(value) for name, value in body.items()},
        "certificate": credentials.certificate_pem.decode("ascii"),
        "authority": authority.migration_root_pem.decode("ascii"),
    }
    value = key.sign(_DOMAIN + _spelled(signature), ec.ECDSA(hashes.SHA256()))
    return {**body, "signature": {**signature, "value": base64.b64encode(value).decode("ascii")}}


def check(report: object) -> Verdict:
    """Compare a report, as `parse` gives it, with what was signed. Never raises."""
    if not isinstance(report, dict):
        return Verdict(("it is not a report",))
    signature = report.get("signature")
    if signature is None:
        return Verdict(("it is not signed: only a migration that succeeded has a signed report",))
    try:
        signed_at, authority, signer = _verified(signature)
    except (ValueError, TypeError, InvalidSignature, UnsupportedAlgorithm) as error:
        why = "its value does not fit" if isinstance(error, InvalidSignature) else str(error)
        return Verdict((f"the signature is not valid: {why}",))
    problems = tuple(_changes(report, signature["digests"]))
    if not problems and signer != (report.get("id"), Role.CONTROLLER):
        problems = ("who signed was not the controller of this migration",)
    return Verdict(problems, signed_at, authority)


def parse(text: str) -> object:
    """JSON in which a name stands once and every number is one.

    Raises:
        ValueError: it is not.
    """
    return json.loads(text, object_pairs_hook=_unique, parse_constant=_no_number)


def _verified(signature: Any) -> tuple[str, str, tuple[str, Role] | None]:
    """When it was made, under whose authority, and by whom."""
    if not isinstance(signature, dict) or set(signature) != set(_NAMES):
        raise ValueError("it has not the parts of one")
    if not isinstance(signature["digests"], dict) or not all(
        isinstance(part, str) for name, part in signature.items() if name != "digests"
    ):
        raise ValueError("its parts are not of their kinds")
    if signature["algorithm"] != ALGORITHM:
        raise ValueError("it is of an unknown kind")
    signed = {name: signature[name] for name in _NAMES if name != "value"}
    root = x509.load_pem_x509_certificate(signature["authority"].encode("ascii"))
    leaf = x509.load_pem_x509_certificate(signature["certificate"].encode("ascii"))
    value = base64.b64decode(signature["value"].encode("ascii"), validate=True)
    key = leaf.public_key()
    if not isinstance(key, ec.EllipticCurvePublicKey):
        raise ValueError("its key is of an unknown kind")  # noqa: TRY004 - one way out
    key.verify(value, _DOMAIN + _spelled(signed), ec.ECDSA(hashes.SHA256()))
    root.verify_directly_issued_by(root)
    leaf.verify_directly_issued_by(root)
    when = datetime.fromisoformat(signature["signed_at"])
    if not leaf.not_valid_before_utc <= when <= leaf.not_valid_after_utc:
        raise ValueError("it was made out of its certificate's time")
    return signature["signed_at"], fingerprint(root), _signer(leaf)


def _signer(leaf: x509.Certificate) -> tuple[str, Role] | None:
    names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    uris = names.get_values_for_type(x509.UniformResourceIdentifier)
    identities = [identity for uri in uris if (identity := parse_uri(uri)) is not None]
    return (identities[0].migration_id, identities[0].role) if len(identities) == 1 else None


def _changes(report: Mapping[str, Any], digests: Mapping[str, Any]) -> Iterator[str]:
    body = {name: value for name, value in report.items() if name != "signature"}
    for name in sorted(body.keys() | digests.keys()):
        if name not in body:
            yield f"{name!r} is missing"
        elif name not in digests:
            yield f"{name!r} was added"
        elif _digest(body[name]) != digests[name]:
            yield f"{name!r} is not what was signed"


def _digest(value: object) -> str:
    return hashlib.sha256(_spelled(value)).hexdigest()


def _spelled(value: object) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode("ascii")


def _unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    if len({name for name, _ in pairs}) != len(pairs):
        raise ValueError("a name stands twice in it")
    return dict(pairs)


def _no_number(name: str) -> object:
    raise ValueError(f"{name} is no number")
