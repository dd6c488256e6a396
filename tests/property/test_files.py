"""Every file that we parse, with anything in it: a legal result, or one of our errors.

The journal, the manifest, frames, partition tables, fleet files, plans and reports have
tests of their own: test_journal.py, test_manifest.py, tests/unit/agent/test_frames.py
and test_partitions.py, test_fleet_file.py, test_report_files.py.
"""

import json
import os
import re
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

import lock
from blockferry.errors import BlockferryError, InternalError
from blockferry.identity import parse_uri
from blockferry_agent.config import AgentConfig, load_config
from blockferry_agent.credentials import _END_OF_KEY, Credentials
from blockferry_controller import config as controller_config
from blockferry_controller.clouds.local.cloud import LocalCloud
from blockferry_controller.clouds.openstack.clouds_file import read_clouds
from blockferry_controller.engine.records import MigrationRecord, State
from blockferry_controller.engine.state import StateStore
from blockferry_controller.migration.authority import Authority
from blockferry_controller.migration.result import result_document
from blockferry_controller.spec import Endpoint, Kind, Spec

LOCK = lock.LOCKS[0].read_text(encoding="utf-8")
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=12)
    | st.sampled_from(["source", "sink", "", "auto", "zstd:3", "readback", "x" * 5000])
)
JSON = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=8,
)


def ours(read: Callable[[], Any]) -> Any:
    """What it reads; None where it refuses with an error that is ours and no defect."""
    try:
        return read()
    except InternalError:
        raise
    except BlockferryError:
        return None


def mutated(document: dict[str, Any]) -> st.SearchStrategy[dict[str, Any]]:
    """The document with some values replaced, and some keys gone or new."""
    keys = st.sampled_from(sorted(document)) | st.text(max_size=8)
    changes = st.dictionaries(keys, JSON, max_size=3)
    gone = st.sets(st.sampled_from(sorted(document)), max_size=2)
    return st.builds(
        lambda new, out: {k: v for k, v in {**document, **new}.items() if k not in out},
        changes,
        gone,
    )


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("files")


# The agent's configuration.

AGENT = {
    "version": 1,
    "migration_id": "m-1",
    "role": "source",
    "epoch": 1,
    "listen": ["127.0.0.1"],
    "port": 7443,
    "certificate": "c",
    "key": "k",
    "authority": "a",
    "state_directory": "s",
    "dead_man_seconds": 900,
    "power_off": True,
}


@given(content=st.binary(max_size=200) | mutated(AGENT).map(lambda one: json.dumps(one).encode()))
def test_an_agents_configuration(place: Path, content: bytes) -> None:
    path = place / "agent.json"
    path.write_bytes(content)
    found = ours(lambda: load_config(path))
    assert found is None or isinstance(found, AgentConfig)


def test_deep_json_is_refused(place: Path) -> None:
    path = place / "agent.json"
    path.write_bytes(b"[" * 60_000)
    assert ours(lambda: load_config(path)) is None


@given(
    epoch=st.binary(max_size=30) | st.integers().map(lambda number: str(number).encode()),
    adopted=st.none() | st.binary(max_size=60) | st.just(_END_OF_KEY).map(lambda end: b"k" + end),
)
def test_what_an_agent_keeps_of_its_identity(
    place: Path, epoch: bytes, adopted: bytes | None
) -> None:
    directory = place / "s" / "identity"
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "epoch").write_bytes(epoch)
    (directory / "adopted.pem").unlink(missing_ok=True)
    if adopted is not None:
        (directory / "adopted.pem").write_bytes(adopted)
    for name in "cka":
        (place / name).write_bytes(b"first")
    (place / "agent.json").write_text(json.dumps(AGENT))
    config = load_config(place / "agent.json")
    found = ours(lambda: Credentials(config))
    if found is not None:
        # An epoch that no certificate could name would shut every controller out.
        assert parse_uri(found.identity.uri) == found.identity
        assert found.adopted is (adopted is not None)


# What is pinned for instances.


@given(
    content=st.text(max_size=200)
    | st.builds(lambda at, put: LOCK[:at] + put + LOCK[at:], st.integers(0, 400), st.text())
    | st.text(max_size=20).map(lambda marker: f"grpcio==1 ; {marker} \\\n    --hash=sha256:0\n")
)
def test_a_lock_file(content: str) -> None:
    # One that is damaged ends `make lock` with a line, as an exit does.
    with suppress(SystemExit):
        kept = lock._pins_for(content, "3.12")
        assert set(re.findall(r"--hash=\S+", kept)) <= set(re.findall(r"--hash=\S+", content))


# The controller's configuration, and clouds.yaml.

CONTROLLER = {
    "state": "sqlite:////tmp/state.db",
    "compression": "auto",
    "channels": 2,
    "limit": "20MiB/s",
    "verify": "readback",
    "image": "debian",
    "clouds": {"east": {"network": "own", "types": {"a": "b"}}},
}


def yaml_text(documents: st.SearchStrategy[dict[str, Any]]) -> st.SearchStrategy[bytes]:
    return documents.map(lambda one: yaml.safe_dump(one).encode())


@given(content=st.binary(max_size=200) | yaml_text(mutated(CONTROLLER)))
def test_a_controllers_configuration(place: Path, content: bytes) -> None:
    path = place / "config.yaml"
    path.write_bytes(content)
    found = ours(lambda: controller_config.load(path, {}))
    assert found is None or isinstance(found, controller_config.Config)


@pytest.mark.parametrize(
    "content", [b"[" * 20_000, b"a: 2026-13-45", b"a: !!int x", b"? {a: b}\n: c", b"a: *b"]
)
def test_yaml_that_breaks_its_parser_is_refused(place: Path, content: bytes) -> None:
    path = place / "config.yaml"
    path.write_bytes(content)
    assert ours(lambda: controller_config.load(path, {})) is None


CLOUD = {"auth": {"auth_url": "http://127.0.0.1:9/v3", "username": "u"}, "region_name": "one"}


@given(
    content=st.binary(max_size=200)
    | yaml_text(mutated({"clouds": {"east": CLOUD}, "cache": {}}))
    | yaml_text(mutated(CLOUD).map(lambda cloud: {"clouds": {"east": cloud}}))
)
def test_a_clouds_yaml(place: Path, content: bytes) -> None:
    path = place / "clouds.yaml"
    path.write_bytes(content)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OS_CLIENT_CONFIG_FILE", str(path))
        patch.setattr("openstack.config.loader.CONFIG_FILES", [str(path)])
        found = ours(read_clouds)
    assert found is None or all(isinstance(name, str) for name in found[1])


# What the controller keeps.


@given(content=st.binary(max_size=300), cut=st.integers(0, 2000), at=st.integers(0, 2000))
def test_a_migrations_authority(content: bytes, cut: int, at: int) -> None:
    good = _AUTHORITY
    for pem in (content, good[:cut], good[:at] + content + good[at:]):
        found = ours(partial(Authority.from_pem, pem))
        assert found is None or isinstance(found, Authority)


_AUTHORITY = Authority.create("m-1").to_pem()


@pytest.fixture(scope="module")
def store(place: Path) -> Iterator[StateStore]:
    with closing(StateStore.open(f"sqlite:///{place}/state.db")) as store:
        spec = Spec(Kind.MIGRATE, Endpoint("east", "data"), Endpoint("west"))
        store.create("m-1", spec, "east/data", "west/data")
        yield store


COLUMNS = ("spec", "facts", "error", "result", "state", "kind", "created_at", "progress", "holder")


@given(
    column=st.sampled_from(COLUMNS),
    value=st.binary(max_size=40)
    | st.text(max_size=40)
    | JSON.map(json.dumps)
    | mutated(Spec(Kind.MIGRATE, Endpoint("east"), Endpoint("west")).to_json()).map(json.dumps),
)
def test_a_row_of_the_state_database(
    place: Path, store: StateStore, column: str, value: bytes | str
) -> None:
    with closing(sqlite3.connect(place / "state.db")) as database:
        before = database.execute("SELECT * FROM blockferry_migrations").fetchall()
        if column == "progress":
            change = "INSERT OR REPLACE INTO blockferry_progress VALUES ('m-1', ?)"
        elif column == "holder":
            change = "INSERT OR REPLACE INTO blockferry_leases VALUES ('m-1', ?, 9e12)"
        else:
            change = f"UPDATE blockferry_migrations SET {column} = ?"
        with suppress(UnicodeEncodeError):
            database.execute(change, (value,))
        database.commit()
        for read in (lambda: store.get("m-1"), lambda: store.listing.newest(1)[0]):
            found = ours(read)
            assert found is None or isinstance(found, MigrationRecord)
            if found is not None:
                json.dumps(result_document(found, State.FAILED, 1.0), default=str)
        marks = ", ".join("?" * len(before[0]))
        for table in ("progress", "leases", "migrations"):
            database.execute(f"DELETE FROM blockferry_{table}")
        database.execute(f"INSERT INTO blockferry_migrations VALUES ({marks})", before[0])
        database.commit()


@given(content=st.binary(max_size=100) | JSON.map(lambda one: json.dumps(one).encode()))
def test_what_this_machine_remembers_as_a_cloud(place: Path, content: bytes) -> None:
    tag = place / "local" / "m-1" / "source-server.json"
    tag.parent.mkdir(parents=True, exist_ok=True)
    tag.write_bytes(content)
    (tag.parent / "source-server").mkdir(exist_ok=True)
    (tag.parent / "source-server" / "pid").write_bytes(content)
    cloud = LocalCloud(place / "local")
    for found in ours(cloud.find_resources) or ():
        assert isinstance(found.id, str)
        assert isinstance(cloud.console_log(found.id, 20), str)
    assert os.fspath(tag)
