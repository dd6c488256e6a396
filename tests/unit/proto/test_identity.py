import pytest

from blockferry.identity import Identity, Role, is_migration_id, parse_uri
from blockferry.tls import peer_identity


@pytest.mark.parametrize("role", list(Role), ids=lambda role: role.value)
def test_uri_round_trip(role: Role) -> None:
    identity = Identity("261122-x7k2mq", role, 3)
    assert parse_uri(identity.uri) == identity


@pytest.mark.parametrize(
    "uri",
    [
        "",
        "blockferry:m-1:source:",
        "blockferry:m-1:source:0",
        "blockferry:m-1:source:-1",
        "blockferry:m-1:source:1:2",
        "blockferry:m-1:root:1",
        "blockferry:-m:source:1",
        "blockferry:M-1:source:1",
        "blockferry:m-1:source:1\n",
        "spiffe://m-1/source/1",
        "blockferry:m-1:source:9999999999999999999",
    ],
)
def test_what_is_not_an_identity(uri: str) -> None:
    assert parse_uri(uri) is None


@pytest.mark.parametrize("text", ["a", "-a", "a-", "a.b", "a" * 41, "ä1", "a b"])
def test_what_is_not_a_migration_id(text: str) -> None:
    assert not is_migration_id(text)
    with pytest.raises(ValueError, match="migration id"):
        Identity(text, Role.SINK, 1)


def test_epoch_begins_at_one() -> None:
    with pytest.raises(ValueError, match="epoch"):
        Identity("m-1", Role.SINK, 0)


def test_the_bootstrap_name_never_passes_for_the_adopted_one() -> None:
    identity = Identity("m-1", Role.SINK, 1)
    assert identity.server_name != identity.bootstrap_server_name


@pytest.mark.parametrize(
    ("uris", "epoch"),
    [
        pytest.param([b"blockferry:m-1:sink:2"], 2, id="one"),
        pytest.param([b"https://example.org", b"blockferry:m-1:sink:2"], 2, id="beside another"),
        pytest.param([b"blockferry:m-1:sink:2", b"blockferry:m-2:sink:9"], None, id="two"),
        pytest.param([b"\xff\xfe"], None, id="no text"),
        pytest.param([], None, id="none"),
    ],
)
def test_peer_identity(uris: list[bytes], epoch: int | None) -> None:
    found = peer_identity({"peer_uri": uris})
    assert (found.epoch if found is not None else None) == epoch
