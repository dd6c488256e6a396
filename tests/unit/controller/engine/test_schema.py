"""Every released state database is upgraded, with its rows; models and revisions agree."""

import json
import shutil
import subprocess
import sys
from datetime import datetime, timezone
from pathlib import Path

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy.engine import Connection, Engine

from blockferry_controller.engine import schema, tables
from blockferry_controller.engine.pair_records import PairState
from blockferry_controller.engine.pairs import Pairs
from blockferry_controller.engine.state import StateStore
from blockferry_controller.spec import Endpoint, Kind, Spec
from tests.unit.controller.engine.conftest import NewUrl

RELEASED = sorted((Path(__file__).parent / "released").glob("*.sql"))
SPEC = Spec(Kind.MIGRATE, Endpoint("east", "data"), Endpoint("west"))
WORDS = {
    "sqlite": {"TIMESTAMP_UTC": "DATETIME", "BYTES": "BLOB", "{DIGEST}": f"X'{'ab' * 32}'"},
    "postgresql": {
        "TIMESTAMP_UTC": "TIMESTAMP WITH TIME ZONE",
        "BYTES": "BYTEA",
        "{DIGEST}": f"'\\x{'ab' * 32}'",
    },
}
"""What a release's text leaves to the database."""


@pytest.fixture
def empty(store: StateStore) -> Engine:
    """A database without a table of ours."""
    tables.metadata.drop_all(store.database)
    return store.database


def make(engine: Engine, text: str) -> None:
    """Run a release's text."""
    lines = [line for line in text.splitlines() if not line.startswith("--")]
    words = {**WORDS[engine.dialect.name], "{SPEC}": json.dumps(SPEC.to_json())}
    for word, meant in words.items():
        lines = [line.replace(word, meant) for line in lines]
    with engine.begin() as connection:
        for statement in "\n".join(lines).split(";\n"):
            # No text of ours: colons are no parameters.
            connection.exec_driver_sql(statement.rstrip(";\n").replace("%", "%%"))


def differences(connection: Connection) -> list[object]:
    """Between what is there and the models, DBOS's tables left out."""
    ours = {
        "compare_type": True,
        "include_name": lambda name, kind, _: kind != "table" or name.startswith("blockferry_"),
    }
    context = MigrationContext.configure(connection, opts=ours)
    return list(compare_metadata(context, tables.metadata))


@pytest.mark.parametrize("release", RELEASED, ids=lambda path: path.stem)
def test_a_released_database_is_upgraded_with_its_rows(
    empty: Engine, store: StateStore, release: Path
) -> None:
    make(empty, release.read_text(encoding="utf-8"))
    schema.prepare(empty)
    with empty.connect() as connection:
        assert schema.version(connection) == tables.SCHEMA_VERSION
        assert differences(connection) == []
    done, failed = store.get("m-1"), store.get("m-2")
    assert (done.spec, done.state, done.epoch) == (SPEC, "SUCCEEDED", 2)
    assert (done.facts, done.result) == ({"digest": "blake3:00"}, {"id": "m-1"})
    assert (done.progress.committed_bytes, done.steps[0].detail) == (1 << 30, "ok")
    assert store.kept_report("m-1") == {"format": "blockferry-report/1"}
    assert (failed.error, failed.message) == ({"reason": "AGENT_SILENT"}, "no answer")
    assert failed.wants.limit_bytes_per_second == 1 << 20
    assert list(store.manifests.runs("m-2")) == [(0, b"\xab" * 32)]
    assert not store.driven("m-2")
    assert store.fleets.get("shop").document == {"fleet": "shop"}
    (item,) = store.fleets.items("shop")
    assert (item.volume_id, item.state.value, item.migration_id) == ("v-1", "RUNNING", "m-1")
    assert store.fleets.wants("shop").approved == {"all"}


def test_pairs_of_before_lanes_end_with_all_that_is_theirs(
    empty: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No release had pairs, but whoever runs the sources may; their agents know no lane."""
    earlier = tmp_path / "revisions"
    shutil.copytree(schema.REVISIONS, earlier)
    for path in earlier.glob("r0*.py"):
        if path.stem[:5] > "r0003":
            path.unlink()
    with empty.begin() as connection, monkeypatch.context() as patch:
        patch.setattr(schema, "REVISIONS", earlier)
        patch.setattr(tables, "SCHEMA_VERSION", 3)
        schema.upgrade(connection, 0)
    with empty.begin() as connection:
        pairs = sa.Table("blockferry_pairs", sa.MetaData(), autoload_with=connection)
        now = datetime.now(timezone.utc)
        for own, state in (("pair-a", "TAKEN"), ("pair-b", "ENDED")):
            connection.execute(pairs.insert().values(
                id=own, fleet_id="shop", source="east", destination="west", fit="", state=state,
                migration_id="m-1", taken_in=1, epoch=2, served=0, facts={}, made_at=now,
                changed_at=now,
            ))  # fmt: skip
    schema.prepare(empty)
    with empty.connect() as connection:
        assert differences(connection) == []
    found = {one.id: (one.state, one.lanes) for one in Pairs(empty).all()}
    assert found == {"pair-a": (PairState.ENDING, ()), "pair-b": (PairState.ENDED, ())}


def test_revisions_from_the_first_on_come_to_the_models(empty: Engine) -> None:
    with empty.begin() as connection:
        schema.upgrade(connection, 0)
        assert schema.version(connection) == tables.SCHEMA_VERSION
        assert differences(connection) == []


def test_a_new_database_is_what_the_models_say(store: StateStore) -> None:
    with store.database.connect() as connection:
        assert differences(connection) == []


def test_an_upgrade_that_fails_leaves_the_database_as_it_was(
    store: StateStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    latest, number = tables.SCHEMA_VERSION, tables.SCHEMA_VERSION + 1
    revisions = tmp_path / "revisions"
    shutil.copytree(schema.REVISIONS, revisions)
    (revisions / "next.py").write_text(
        f"import sqlalchemy as sa\nfrom alembic import op\nrevision = '{number:04}'\n"
        f"down_revision = '{latest:04}'\ndef upgrade():\n"
        "    op.add_column('blockferry_steps', sa.Column('more', sa.Integer()))\n"
        "    op.drop_table('blockferry_nothing')\n"
    )
    monkeypatch.setattr(schema, "REVISIONS", revisions)
    monkeypatch.setattr(tables, "SCHEMA_VERSION", number)
    with pytest.raises(sa.exc.SQLAlchemyError):
        schema.prepare(store.database)
    with store.database.connect() as connection:
        assert schema.version(connection) == latest
        assert differences(connection) == []


def test_a_database_of_the_right_version_does_without_alembic(
    new_url: NewUrl, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    program = (
        "import sys; from blockferry_controller.engine.database import open_database; "
        "[open_database(sys.argv[1])[0].dispose() for _ in range(2)]; "
        "print('alembic' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, new_url()],
        capture_output=True, text=True, check=True, timeout=60,
    )  # fmt: skip
    assert done.stdout == "False\n"
