"""What an agent keeps of itself, where making it fails."""

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
