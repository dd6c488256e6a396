"""What each command asks of the service, and what it makes of the answer."""

import json
import os
import re
import signal
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
import yaml

from blockferry.errors import BlockferryError, CapacityError, IntegrityError, NotFoundError
from blockferry_controller.__main__ import main
from blockferry_controller.cli.session import Session
from blockferry_controller.engine.records import State
from blockferry_controller.engine.state import StateStore
from blockferry_controller.events import Progress
from blockferry_controller.migration.cleanup import CleanupItem
from blockferry_controller.migration.preflight.check import Check, Outcome
from blockferry_controller.spec import (
    Endpoint,
    Kind,
    Placement,
    Spec,
    Transfer,
    Verify,
)
from tests.fakes.service import DIGEST, ScriptedMigrations, service, wait_for_interrupt

CONTRACT = {
    "id", "state", "size_bytes", "data_bytes", "zero_bytes", "resumed_from_bytes", "sent_bytes",
    "wire_bytes", "duration_seconds", "verified", "digest",
}  # fmt: skip


@pytest.fixture
def url(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """URL of a fresh state; no configuration or option of the developer's holds."""
    for name in [name for name in os.environ if name.startswith("BLOCKFERRY_")]:
        monkeypatch.delenv(name)
    url = f"sqlite:///{tmp_path}/state.db"
    monkeypatch.setenv("BLOCKFERRY_STATE", url)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    before = signal.getsignal(signal.SIGTERM)
    yield url
    signal.signal(signal.SIGTERM, before)


@pytest.fixture
def made() -> list[ScriptedMigrations]:
    """The services that commands made."""
    return []


def spec_of(made: list[ScriptedMigrations]) -> Spec:
    asked = made[0].asked[0][1]
    assert isinstance(asked, Spec)
    return asked


def stored(url: str, **states: State) -> None:
    """Put migrations from east to west into the state."""
    store = StateStore.open(url)
    spec = Spec(Kind.MIGRATE, Endpoint("east", "data"), Endpoint("west"))
    for name, state in states.items():
        store.create(name, spec, "east/data", "west/data")
        store.set_state(name, state)
    store.close()


def test_copy_asks_for_absolute_paths_and_the_options(
    url: str, made: list[ScriptedMigrations], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    options = [
        "--compression",
        "zstd:3",
        "--channels",
        "2",
        "--limit",
        "1MiB/s",
        "--verify",
        "wire",
    ]

    assert main(["copy", "a.img", "/dev/sdz", *options], Session(service=service(made))) == 0

    assert spec_of(made) == Spec(
        Kind.COPY,
        Endpoint("local", str(tmp_path / "a.img")),
        Endpoint("local", "/dev/sdz"),
        Transfer("zstd:3", 2, 1 << 20, Verify.WIRE),
    )


def test_migrate_asks_for_everything_that_was_said(
    url: str, made: list[ScriptedMigrations], tmp_path: Path
) -> None:
    (tmp_path / "c.yaml").write_text(
        "defaults: {verify: wire, controller_address: 192.0.2.7, image: i}\n"
        "clouds: {east: {network: east-net}, west: {network: west-net, flavor: f, "
        "types: {ssd: fast}, zones: {az1: nova}}}",
        encoding="utf-8",
    )
    options = ["--to-type", "ssd", "--to-az", "az1", "--to-name", "new", "--to-size", "20"]
    wheels = ["--wheels", "http://127.0.0.1/", "--config", str(tmp_path / "c.yaml")]
    wheels += ["--ip-version", "6", "--floating-ip", "always", "--external-network", "x"]
    address = ["--controller-address", "2001:DB8::0:7"]
    checks = ["--skip-check", "wheels", "--skip-check", "tail", "--skip-check", "wheels"]
    bounds = ["--allow-downgrade", "--max-duration", "1h30m"]

    code = main(
        [
            "migrate",
            "data",
            "--from",
            "east",
            "--to",
            "west",
            *options,
            *wheels,
            *address,
            *checks,
            *bounds,
        ],
        Session(service=service(made)),
    )

    assert code == 0
    net: tuple[int, str, str] = (6, "always", "x")
    assert spec_of(made) == Spec(
        Kind.MIGRATE,
        Endpoint("east", "data", Placement("i", "", "east-net", "http://127.0.0.1/", *net)),
        Endpoint("west", "new", Placement("i", "f", "west-net", "http://127.0.0.1/", *net)),
        Transfer(verify=Verify.WIRE),
        to_type="ssd",
        to_availability_zone="az1",
        to_size_bytes=20 << 30,
        controller_address="2001:db8::7",
        types={"ssd": "fast"},
        zones={"az1": "nova"},
        skip_checks=("wheels", "tail"),
        allow_downgrade=True,
        max_duration_seconds=5400,
    )
    assert Spec.from_json(json.loads(json.dumps(spec_of(made).to_json()))) == spec_of(made)


def test_the_environment_beats_the_file_and_yields_to_the_option(
    url: str, made: list[ScriptedMigrations], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "blockferry").mkdir()
    (tmp_path / "blockferry" / "config.yaml").write_text(
        "defaults: {channels: 1, limit: 1MiB/s, compression: none}", encoding="utf-8"
    )
    monkeypatch.setenv("BLOCKFERRY_CHANNELS", "2")
    monkeypatch.setenv("BLOCKFERRY_LIMIT", "2MiB/s")

    assert main(["copy", "a", "b", "--limit", "none"], Session(service=service(made))) == 0

    assert spec_of(made).transfer == Transfer("none", 2, 0)


@pytest.mark.parametrize("command", ["copy", "resume"])
def test_an_attempt_ends_with_its_result(
    url: str, made: list[ScriptedMigrations], capsys: pytest.CaptureFixture[str], command: str
) -> None:
    arguments = ["a", "b"] if command == "copy" else ["m1"]
    if command == "resume":
        stored(url, **{"m1-first": State.INTERRUPTED})

    assert main([command, *arguments, "-o", "json"], Session(service=service(made))) == 0

    out, err = capsys.readouterr()
    result = json.loads(out)
    assert set(result) >= CONTRACT
    assert (result["id"], result["state"], result["digest"]) == ("m1-first", "SUCCEEDED", DIGEST)
    assert result["verified"] is True
    assert result["wire_bytes"] == 3 << 20
    events = [json.loads(line) for line in err.splitlines()]
    assert [event["event"] for event in events] == ["note", "progress"]
    assert "m1-first" in events[0]["message"]


@pytest.mark.parametrize("output", ["table", "yaml"])
def test_people_read_the_result(
    url: str, made: list[ScriptedMigrations], capsys: pytest.CaptureFixture[str], output: str
) -> None:
    assert main(["copy", "a", "b", "-o", output], Session(service=service(made))) == 0

    out = capsys.readouterr().out
    if output == "yaml":
        assert set(yaml.safe_load(out)) >= CONTRACT
    else:
        assert "10.0 MiB" in out
        assert DIGEST in out


def test_a_failed_attempt_tells_error_result_and_how_to_go_on(
    url: str, made: list[ScriptedMigrations], capsys: pytest.CaptureFixture[str]
) -> None:
    def script(fake: ScriptedMigrations, migration_id: str) -> None:
        fake.store.save_progress(migration_id, Progress(size_bytes=9, committed_bytes=4))
        fake.store.set_state(migration_id, State.FAILED, message="chunk 7 differs")
        raise IntegrityError("CHUNK_DIFFERS", "chunk 7 differs", chunk=7)

    session = Session(service=service(made, script))

    assert main(["copy", "a", "b", "-o", "json"], session) == 20

    out, err = capsys.readouterr()
    document = json.loads(out)
    assert set(document) >= CONTRACT
    assert (document["id"], document["state"]) == ("m1-first", "FAILED")
    assert document["verified"] is False
    assert document["error"] == {
        "reason": "CHUNK_DIFFERS",
        "message": "chunk 7 differs",
        "metadata": {"chunk": "7"},
        "exit_code": 20,
    }
    assert "blockferry: go on with: blockferry resume m1-first" in err


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=lambda s: s.name)
def test_a_signal_stops_in_order(
    url: str,
    made: list[ScriptedMigrations],
    capfd: pytest.CaptureFixture[str],
    number: signal.Signals,
) -> None:
    def script(fake: ScriptedMigrations, migration_id: str) -> None:
        os.kill(os.getpid(), number)
        wait_for_interrupt(fake, migration_id)

    before = signal.getsignal(number)

    assert main(["copy", "a", "b"], Session(service=service(made, script))) == 130

    out, err = capfd.readouterr()
    assert "stopping in order" in err
    assert "blockferry resume m1-first" in err
    assert not out
    if number is signal.SIGINT:
        assert signal.getsignal(number) is before


@pytest.fixture
def _interruptible() -> Iterator[None]:
    """As from a terminal: what a script starts with `&` has SIGINT ignored (POSIX, sh, 2.11)."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("_interruptible")
def test_a_second_signal_stops_at_once(
    url: str, made: list[ScriptedMigrations], capfd: pytest.CaptureFixture[str]
) -> None:
    def script(fake: ScriptedMigrations, migration_id: str) -> None:
        os.kill(os.getpid(), signal.SIGINT)
        assert fake.stop.wait(10)
        os.kill(os.getpid(), signal.SIGINT)
        threading.Event().wait(10)
        raise AssertionError("the second signal did nothing")

    assert main(["copy", "a", "b"], Session(service=service(made, script))) == 130
    assert "blockferry: error: interrupted" in capfd.readouterr().err


def test_list_shows_all_with_the_keys_of_the_contract(
    url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    stored(url, **{"m1-a": State.SUCCEEDED, "m2-b": State.PENDING})

    assert main(["list", "-o", "json"]) == 0
    listed = json.loads(capsys.readouterr().out)
    assert [item["id"] for item in listed] == ["m1-a", "m2-b"]
    assert listed[0].keys() >= {
        "id", "state", "source", "destination", "size_bytes", "committed_bytes"
    }  # fmt: skip

    assert main(["list"]) == 0
    heading, first, _ = capsys.readouterr().out.splitlines()
    assert heading.split()[:5] == ["ID", "STATE", "SOURCE", "DESTINATION", "SIZE"]
    assert first.split()[:3] == ["m1-a", "SUCCEEDED", "east/data"]


def test_an_empty_list_says_so_but_not_to_programs(
    url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["list"]) == 0
    out, err = capsys.readouterr()
    assert (out, err) == ("", "No migrations yet.\n")


def test_show_tells_steps_and_spec(
    url: str, made: list[ScriptedMigrations], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["copy", "a", "b"], Session(service=service(made))) == 0
    capsys.readouterr()

    assert main(["show", "m1", "-o", "json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["steps"] == [{"attempt": 1, "step": "copy", "seconds": 1.25, "detail": "10 MiB"}]
    assert shown["spec"]["kind"] == "copy"
    assert shown["progress"]["wire_bytes"] == 3 << 20

    assert main(["show", "m1"]) == 0
    assert "1.2 s" in capsys.readouterr().out


def test_cancel_passes_the_whole_id(
    url: str, made: list[ScriptedMigrations], capsys: pytest.CaptureFixture[str]
) -> None:
    stored(url, **{"m1-a": State.INTERRUPTED})

    assert main(["cancel", "m1", "-o", "json"], Session(service=service(made))) == 0

    assert made[0].asked == [("cancel", "m1-a")]
    assert json.loads(capsys.readouterr().out)["state"] == "CANCELLED"


@pytest.mark.parametrize(
    ("arguments", "asked"),
    [
        ([], [("cleanup", ["east", "west"], False)]),
        (["--dry-run"], [("cleanup", ["east", "west"], True)]),
        (["--cloud", "north"], [("cleanup", ["north"], False)]),
    ],
    ids=["known clouds", "dry run", "named clouds"],
)
def test_cleanup_looks_where_migrations_were(
    url: str, made: list[ScriptedMigrations], arguments: list[str], asked: list[tuple[object, ...]]
) -> None:
    stored(url, **{"m1-a": State.FAILED})

    assert main(["cleanup", *arguments], Session(service=service(made))) == 0

    assert made[0].asked == asked


def test_one_cloud_out_of_reach_does_not_keep_another_from_being_cleaned(
    url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    class East(ScriptedMigrations):
        def cleanup(
            self, clouds: Sequence[str], *, dry_run: bool
        ) -> tuple[list[CleanupItem], list[BlockferryError]]:
            missing = NotFoundError("CLOUD_NOT_FOUND", "there is no cloud east", cloud="east")
            return [CleanupItem("west", "port", "p1", "n", "m1", "deleted", "")], [missing]

    session = Session(service=East)  # type: ignore[arg-type]

    assert main(["cleanup", "--cloud", "east", "--cloud", "west", "-o", "json"], session) == 11

    document = json.loads(capsys.readouterr().out)
    assert [item["id"] for item in document["items"]] == ["p1"]
    assert document["error"]["reason"] == "CLOUD_NOT_FOUND"


def test_what_could_not_be_removed_is_no_success(
    url: str, made: list[ScriptedMigrations], capsys: pytest.CaptureFixture[str]
) -> None:
    item = CleanupItem("east", "volume", "v1", "n", "m1", "failed", "in use")
    session = Session(service=service(made, left=[item]))

    assert main(["cleanup", "--cloud", "east"], session) == 13

    out, err = capsys.readouterr()
    assert "v1" in out
    assert "volume v1 in east: in use" in err


def test_a_failure_before_the_first_byte_does_not_advise_to_resume(
    url: str, made: list[ScriptedMigrations], capsys: pytest.CaptureFixture[str]
) -> None:
    def script(fake: ScriptedMigrations, migration_id: str) -> None:
        fake.store.set_state(migration_id, State.FAILED)
        raise NotFoundError("VOLUME_NOT_FOUND", "there is no volume a")

    assert main(["copy", "a", "b"], Session(service=service(made, script))) == 11
    assert "resume" not in capsys.readouterr().err


def test_cleanup_tells_each_resource(
    url: str, made: list[ScriptedMigrations], capsys: pytest.CaptureFixture[str]
) -> None:
    item = CleanupItem("east", "server", "id-1", "blockferry-m1", "m1", "deleted", "nobody's")
    session = Session(service=service(made, left=[item]))

    assert main(["cleanup", "--cloud", "east", "-o", "json"], session) == 0

    assert json.loads(capsys.readouterr().out) == [
        {"cloud": "east", "kind": "server", "id": "id-1", "name": "blockferry-m1",
         "migration_id": "m1", "action": "deleted", "reason": "nobody's"}
    ]  # fmt: skip


def test_cleanup_without_any_cloud_is_not_silent(
    url: str, made: list[ScriptedMigrations], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["cleanup"], Session(service=service(made))) == 0

    assert "name one with --cloud" in capsys.readouterr().err


def test_digest_prints_just_the_digest(
    url: str, made: list[ScriptedMigrations], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["digest", "/x"], Session(service=service(made))) == 0

    assert capsys.readouterr().out == DIGEST + "\n"
    assert made[0].asked == [("digest", "/x")]


MIGRATE = ["migrate", "v", "--from", "a", "--to", "b"]


def test_a_dry_run_shows_checks_and_steps_and_starts_nothing(
    url: str, made: list[ScriptedMigrations], capsys: pytest.CaptureFixture[str]
) -> None:
    checks = [Check("clouds", Outcome.OK, "a to b")]

    assert main([*MIGRATE, "--dry-run"], Session(service=service(made, checks=checks))) == 0

    assert [asked[0] for asked in made[0].asked] == ["preflight"]
    out = capsys.readouterr().out
    assert "clouds  ok       a to b" in out
    assert "preflight" in out.splitlines()[-1]


@pytest.mark.parametrize("name", ["qutoa", "source-volume"])
def test_what_cannot_be_skipped_is_a_usage_error(
    url: str, made: list[ScriptedMigrations], capsys: pytest.CaptureFixture[str], name: str
) -> None:
    assert main([*MIGRATE, "--skip-check", name], Session(service=service(made))) == 2

    assert "destination-quota" in capsys.readouterr().err, "says what can be"
    assert not made


def test_a_dry_run_exits_with_the_code_of_the_first_failure(
    url: str, made: list[ScriptedMigrations], capsys: pytest.CaptureFixture[str]
) -> None:
    gone = NotFoundError("VOLUME_NOT_FOUND", "no volume v")
    full = CapacityError("QUOTA_CORES", "no cores left")
    checks = [
        Check("wheels", Outcome.WARN, "from PyPI"),
        Check("source-volume", Outcome.FAIL, gone.message, gone),
        Check("destination-quota", Outcome.FAIL, full.message, full),
    ]

    assert main([*MIGRATE, "--dry-run"], Session(service=service(made, checks=checks))) == 11

    out, err = capsys.readouterr()
    assert "no cores left" in out, "all of them are shown"
    assert "no volume v" in err


def test_a_dry_run_fails_as_the_check_does(
    url: str, made: list[ScriptedMigrations], capsys: pytest.CaptureFixture[str]
) -> None:
    checks = [Check("clouds", Outcome.OK, ""), Check("quota", Outcome.FAIL, "no cores left")]
    session = Session(service=service(made, checks=checks))

    assert main([*MIGRATE, "--dry-run", "-o", "json"], session) == 12

    document = json.loads(capsys.readouterr().out)
    assert [check["outcome"] for check in document["checks"]] == ["ok", "fail"]
    assert document["error"]["message"] == "quota: no cores left"


@pytest.mark.parametrize("output", [None, "md", "json", "yaml", "table"])
def test_report_in_every_format(
    url: str,
    made: list[ScriptedMigrations],
    capsys: pytest.CaptureFixture[str],
    output: str | None,
) -> None:
    assert main(["copy", "a", "b"], Session(service=service(made))) == 0
    capsys.readouterr()

    assert main(["report", "m1", *(["-o", output] if output else [])]) == 0

    out = capsys.readouterr().out
    assert DIGEST in out
    if output in {None, "md"}:
        assert out.startswith("# Migration m1-first\n")
    if output == "json":
        assert json.loads(out)["proof"]["verified"] is True


def test_doctor_passes_on_this_machine(
    url: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("OS_CLIENT_CONFIG_FILE", str(tmp_path / "clouds.yaml"))
    (tmp_path / "clouds.yaml").write_text("clouds: {east: {}, west: {}}", encoding="utf-8")

    assert main(["doctor", "-o", "json"]) == 0

    checks = {check["name"]: check for check in json.loads(capsys.readouterr().out)["checks"]}
    assert checks["clouds.yaml"]["detail"] == f"{tmp_path}/clouds.yaml: east, west"
    assert checks["state"]["outcome"] == "ok"


def test_doctor_fails_with_the_code_of_what_failed(
    url: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")
    state = f"sqlite:///{tmp_path}/file/state.db"

    assert main(["doctor", "--state", state]) == 16

    out, err = capsys.readouterr()
    assert re.search("^state +fail ", out, re.MULTILINE)
    assert err.startswith("blockferry: error: the state database")
