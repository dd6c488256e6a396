"""What an agent keeps of itself, and which certificates it takes."""

from datetime import datetime, timedelta, timezone
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from blockferry.errors import InternalError, PreconditionError
from blockferry.identity import Identity, Role
from blockferry_agent import openssl
from blockferry_agent.credentials import Credentials
from blockferry_controller.migration.authority import Authority


@pytest.fixture
def authority() -> Authority:
    return Authority.create("m-1")


@pytest.fixture
def credentials(tmp_path: Path, authority: Authority) -> Credentials:
    return fresh(tmp_path, authority)


def fresh(tmp_path: Path, authority: Authority) -> Credentials:
    """Of an agent that has only what cloud-init carried."""
    files = {"authority": authority.migration_root_pem, "key": b"key", "certificate": b"own"}
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    config: Any = SimpleNamespace(
        state_directory=tmp_path / "state", identity=Identity("m-1", Role.SINK, 1),
        **{name: tmp_path / name for name in files},
    )  # fmt: skip
    return Credentials(config)


def test_a_request_that_failed_ends_the_one_before_it(
    credentials: Credentials, authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Or its certificate would be put in force with a key that is not there."""
    certificate = authority.sign(credentials.create_signing_request(), Role.SINK, 1)
    with monkeypatch.context() as broken:

        def fail(key: Path, _: str) -> None:
            key.touch()
            raise InternalError("OPENSSL_FAILED", "no reason")

        broken.setattr(openssl, "make_request", fail)
        with pytest.raises(InternalError):
            credentials.create_signing_request()
    with pytest.raises(PreconditionError) as caught:
        credentials.adopt(certificate)
    assert caught.value.reason == "IDENTITY_REFUSED"
    again = authority.sign(credentials.create_signing_request(), Role.SINK, 1)
    assert credentials.adopt(again) == 1


@pytest.mark.parametrize("years", [-3, 3])
def test_its_dates_are_left_to_the_peers(tmp_path: Path, years: int) -> None:
    """This instance's own clock may be wrong."""
    then = datetime.now(timezone.utc) + timedelta(days=365 * years)
    authority = Authority.create("m-1", then)
    credentials = fresh(tmp_path, authority)
    certificate = authority.sign(credentials.create_signing_request(), Role.SINK, 1, then)
    assert credentials.adopt(certificate) == 1


@pytest.mark.parametrize(
    ("flaw", "told"),
    [
        ("none asked for", "there is no signing request"),
        ("garbage", "not X.509 in PEM"),
        ("another's key", "not for the key"),
        ("foreign", "authority has not signed it for a server"),
        ("for clients only", "authority has not signed it for a server"),
        ("role", "it is for blockferry:m-1:source:1, this is blockferry:m-1:sink:1"),
        ("epoch", "its epoch 1 is below 2"),
    ],
)
def test_it_says_why_a_certificate_is_refused(
    credentials: Credentials, authority: Authority, flaw: str, told: str, tmp_path: Path
) -> None:
    pem = credentials.create_signing_request()
    certificate = authority.sign(pem, Role.SOURCE if flaw == "role" else Role.SINK, 1)
    if flaw == "none asked for":
        credentials.adopt(certificate)
        certificate = authority.sign(pem, Role.SINK, 2)
    elif flaw == "garbage":
        certificate = b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"
    elif flaw == "another's key":
        certificate = authority.sign(openssl.make_request(tmp_path / "another", "x"), Role.SINK, 1)
    elif flaw == "foreign":
        certificate = Authority.create("m-1").sign(pem, Role.SINK, 1)
    elif flaw == "for clients only":
        certificate = authority.sign(pem, Role.CONTROLLER, 1)
    elif flaw == "epoch":
        credentials.see_epoch(2)
    with pytest.raises(PreconditionError, match=told) as caught:
        credentials.adopt(certificate)
    assert caught.value.reason == "IDENTITY_REFUSED"


def test_the_certificate_in_force_may_come_again(
    credentials: Credentials, authority: Authority
) -> None:
    certificate = authority.sign(credentials.create_signing_request(), Role.SINK, 1)
    assert [credentials.adopt(certificate) for _ in range(2)] == [1, 1]
