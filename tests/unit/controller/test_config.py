from collections.abc import Mapping
from pathlib import Path

import pytest

from blockferry.errors import BlockferryError, NotFoundError, UsageError
from blockferry_controller.config import CallRates, Config, load
from blockferry_controller.spec import Placement, Transfer, Verify

WHOLE = """
state: sqlite:////srv/state.db
defaults:
  compression: zstd:5
  channels: 4
  limit: 200MiB/s
  verify: wire
  image: debian-12
  flavor: m1.small
  network: default-net
  wheels: http://wheels.example/
  ip_version: 6
  floating_ip: never
  external_network: public
  controller_address: 192.0.2.7
clouds:
  east:
    network: east-net
    flavor: tiny
  west:
"""


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "config.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def test_a_whole_file_is_read(tmp_path: Path) -> None:
    path = written(tmp_path, WHOLE)

    config = load(path, {})

    assert config == Config(
        path=path,
        state="sqlite:////srv/state.db",
        transfer=Transfer("zstd:5", 4, 200 << 20, Verify.WIRE),
        placement=Placement(
            "debian-12", "m1.small", "default-net", "http://wheels.example/", 6, "never", "public"
        ),
        clouds={"east": Placement(flavor="tiny", network="east-net"), "west": Placement()},
        controller_address="192.0.2.7",
    )


@pytest.mark.parametrize(
    ("cloud", "chosen", "holds"),
    [
        pytest.param("east", Placement(network="cli"), ("debian-12", "tiny", "cli"), id="option"),
        pytest.param("east", Placement(), ("debian-12", "tiny", "east-net"), id="section"),
        pytest.param("west", Placement(), ("debian-12", "m1.small", "default-net"), id="default"),
        pytest.param("nix", Placement(image="x"), ("x", "m1.small", "default-net"), id="unnamed"),
    ],
)
def test_the_nearest_layer_that_says_something_holds(
    tmp_path: Path, cloud: str, chosen: Placement, holds: tuple[str, str, str]
) -> None:
    placement = load(written(tmp_path, WHOLE), {}).placement_for(cloud, chosen)

    assert (placement.image, placement.flavor, placement.network) == holds


@pytest.mark.parametrize(
    ("cloud", "chosen", "holds"), [("west", 0, 6), ("east", 0, 4), ("east", 6, 6), ("nix", 4, 4)]
)
def test_the_nearest_family_holds(tmp_path: Path, cloud: str, chosen: int, holds: int) -> None:
    text = "defaults: {ip_version: 6}\nclouds: {east: {ip_version: 4}, west: {image: i}}"
    config = load(written(tmp_path, text), {"HOME": "/h"})

    assert config.placement_for(cloud, Placement(ip_version=chosen)).ip_version == holds


def test_what_types_and_zones_of_others_become_here(tmp_path: Path) -> None:
    text = "clouds: {west: {types: {ssd: premium}, zones: {az1: nova}, network: n}}"
    config = load(written(tmp_path, text), {"HOME": "/h"})

    assert config.renaming_for("west").types == {"ssd": "premium"}
    assert config.renaming_for("west").zones == {"az1": "nova"}
    assert config.renaming_for("east").types == {}
    assert config.clouds["west"].network == "n"


@pytest.mark.parametrize("text", ["", "\n", "# nothing\n", "defaults:\nclouds:\n"])
def test_an_empty_file_leaves_what_is_built_in(tmp_path: Path, text: str) -> None:
    config = load(written(tmp_path, text), {"HOME": "/home/ann"})

    assert config.transfer == Transfer()
    assert config.state == "sqlite:////home/ann/.local/state/blockferry/state.db"


@pytest.mark.parametrize(
    ("environ", "state"),
    [
        ({"HOME": "/h"}, "sqlite:////h/.local/state/blockferry/state.db"),
        ({"HOME": "/h", "XDG_STATE_HOME": "/x"}, "sqlite:////x/blockferry/state.db"),
        ({"HOME": "/h", "XDG_STATE_HOME": "x"}, "sqlite:////h/.local/state/blockferry/state.db"),
    ],
    ids=["home", "xdg", "relative xdg is ignored"],
)
def test_the_state_is_where_xdg_says(environ: Mapping[str, str], state: str) -> None:
    assert load(None, {**environ, "XDG_CONFIG_HOME": "/nonexistent"}).state == state


def test_the_file_at_the_default_place_is_found(tmp_path: Path) -> None:
    (tmp_path / "blockferry").mkdir()
    written(tmp_path / "blockferry", "defaults: {channels: 3}")

    assert load(None, {"XDG_CONFIG_HOME": str(tmp_path)}).transfer.channels == 3


@pytest.mark.parametrize(
    ("text", "reason", "says"),
    [
        pytest.param("stat: x", "CONFIG_UNKNOWN_KEY", "did you mean state?", id="top"),
        pytest.param(
            "defaults: {limt: 1MiB/s}", "CONFIG_UNKNOWN_KEY",
            "unknown key defaults.limt; did you mean limit?", id="default",
        ),
        pytest.param(
            "clouds: {east: {netwrk: n}}", "CONFIG_UNKNOWN_KEY",
            "clouds.east.netwrk; did you mean network?", id="cloud",
        ),
        pytest.param(
            "defaults: {zzz: 1}", "CONFIG_UNKNOWN_KEY", "known are compression,", id="far off"
        ),
        pytest.param(
            "clouds: {east: {types: [ssd]}}", "CONFIG_INVALID",
            "clouds.east.types: must be a mapping", id="types",
        ),
        pytest.param("- a", "CONFIG_INVALID", "the whole file: must be a mapping", id="list"),
        pytest.param("clouds: [east]", "CONFIG_INVALID", "clouds: must be a mapping", id="clouds"),
        pytest.param("a: [", "CONFIG_INVALID", "is not YAML", id="syntax"),
        pytest.param("a: !!python/none x", "CONFIG_INVALID", "is not YAML", id="tag"),
        pytest.param("defaults: {channels: 17}", "CONFIG_INVALID", "from 1 to 16", id="many"),
        pytest.param("defaults: {channels: true}", "CONFIG_INVALID", "from 1 to 16", id="bool"),
        pytest.param("defaults: {limit: 200}", "INVALID_RATE", "defaults.limit", id="no unit"),
        pytest.param("defaults: {verify: twice}", "INVALID_VERIFY", "readback", id="verify"),
        pytest.param(
            "defaults: {compression: zstd:99}", "INVALID_COMPRESSION", "-7 to 19", id="level"
        ),
        pytest.param(
            "defaults: {controller_address: me}", "INVALID_ADDRESS", "192.0.2.7", id="address"
        ),
        pytest.param(
            "clouds: {east: {ip_version: 5}}", "CONFIG_INVALID",
            "clouds.east.ip_version: must be 4 or 6", id="family",
        ),
        pytest.param(
            "defaults: {floating_ip: maybe}", "CONFIG_INVALID",
            "defaults.floating_ip: must be auto or never or always", id="floating",
        ),
        pytest.param("state: [a]", "CONFIG_INVALID", "state: must be text", id="not text"),
    ],
)  # fmt: skip
def test_a_complaint_names_file_and_key(tmp_path: Path, text: str, reason: str, says: str) -> None:
    path = written(tmp_path, text)

    with pytest.raises(UsageError) as caught:
        load(path, {})

    assert caught.value.reason == reason
    assert says in caught.value.message
    assert str(path) in caught.value.message


@pytest.mark.parametrize(
    ("make", "error", "reason"),
    [
        (lambda path: None, NotFoundError, "CONFIG_NOT_FOUND"),
        (lambda path: path.mkdir(), UsageError, "CONFIG_INVALID"),
        (lambda path: path.write_bytes(b"\xff\xfe\x00"), UsageError, "CONFIG_INVALID"),
    ],
    ids=["missing", "directory", "not text"],
)
def test_a_named_file_must_be_readable(
    tmp_path: Path, make: object, error: type[BlockferryError], reason: str
) -> None:
    path = tmp_path / "config.yaml"
    assert callable(make)
    make(path)

    with pytest.raises(error) as caught:
        load(path, {})

    assert caught.value.reason == reason


@pytest.mark.parametrize(
    ("text", "cloud", "holds"),
    [
        pytest.param("", "east", CallRates(), id="nothing"),
        pytest.param(
            "defaults: {calls_per_second: 7}", "east", CallRates(7, 7, 7, 7), id="every-cloud"
        ),
        pytest.param(
            "defaults: {calls_per_second: 7}\nclouds: {east: {calls_per_second: {network: 0.5}}}",
            "east",
            CallRates(7, 7, 0.5, 7),
            id="nearest-layer",
        ),
        pytest.param(
            "clouds: {east: {calls_per_second: 3}}", "west", CallRates(), id="another-cloud"
        ),
    ],
)
def test_calls_a_second(tmp_path: Path, text: str, cloud: str, holds: CallRates) -> None:
    assert load(written(tmp_path, text), {"HOME": "/h"}).calls_for(cloud) == holds


@pytest.mark.parametrize("value", ["0", "-1", "1001", "many", "yes", ".inf", ".nan", "[1]"])
def test_calls_that_cannot_be_meant(tmp_path: Path, value: str) -> None:
    path = written(tmp_path, f"clouds: {{east: {{calls_per_second: {{compute: {value}}}}}}}")
    with pytest.raises(UsageError, match=r"clouds\.east\.calls_per_second\.compute"):
        load(path, {})


def test_a_service_that_is_none(tmp_path: Path) -> None:
    path = written(tmp_path, "defaults: {calls_per_second: {volume: 3}}")
    with pytest.raises(UsageError, match="block_storage") as caught:
        load(path, {})
    assert caught.value.reason == "CONFIG_UNKNOWN_KEY"
