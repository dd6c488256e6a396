"""A signed report: whatever is changed in it is found."""

import copy
import json
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from blockferry_controller.__main__ import main
from blockferry_controller.engine.state import StateStore
from blockferry_controller.migration.authority import Authority
from blockferry_controller.report import document, signature
from tests.unit.controller.test_report import RECORD

NOW = datetime.now(timezone.utc)
AUTHORITY = Authority.create(RECORD.id, NOW)
REPORT = signature.sign(document.build(RECORD), AUTHORITY, 3, NOW)


def again(report: object) -> object:
    """As it comes out of a file."""
    return signature.parse(json.dumps(report))


def paths(value: object, here: tuple[str | int, ...] = ()) -> list[tuple[str | int, ...]]:
    """Where something is, leaves and all that holds them."""
    inner: Any = value.items() if isinstance(value, dict) else ()
    if isinstance(value, list):
        inner = enumerate(value)
    return [path for key, part in inner for path in [(*here, key), *paths(part, (*here, key))]]


PLACES = paths(REPORT)
JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.text()
    | st.floats(allow_nan=False, allow_infinity=False),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)


def spelled(value: object) -> str:
    return json.dumps(value, sort_keys=True)


def test_what_was_signed_is_intact_in_any_spelling() -> None:
    verdict = signature.check(again(REPORT))
    assert verdict.problems == ()
    assert verdict.authority == AUTHORITY.fingerprint
    backwards = dict(reversed(REPORT.items()))
    text = json.dumps(backwards, indent=7, ensure_ascii=False)
    assert signature.check(signature.parse(text)).problems == ()


@settings(max_examples=300)
@given(st.sampled_from(PLACES), JSON)
def test_a_change_anywhere_is_found(place: tuple[str | int, ...], other: object) -> None:
    changed: Any = copy.deepcopy(REPORT)
    holder = changed
    for key in place[:-1]:
        holder = holder[key]
    if spelled(holder[place[-1]]) == spelled(other) or place == ("signature",):
        return
    holder[place[-1]] = other
    problems = signature.check(again(changed)).problems
    assert problems
    if place[0] != "signature":
        assert any(f"'{place[0]}'" in problem for problem in problems), problems


@pytest.mark.parametrize("place", PLACES, ids=lambda place: ".".join(map(str, place)))
def test_what_is_taken_away_is_missed(place: tuple[str | int, ...]) -> None:
    changed: Any = copy.deepcopy(REPORT)
    holder = changed
    for key in place[:-1]:
        holder = holder[key]
    del holder[place[-1]]
    assert signature.check(again(changed)).problems


def test_what_is_added_is_named() -> None:
    assert signature.check({**REPORT, "verdict": "good"}).problems == ("'verdict' was added",)


def test_a_signature_of_another_report_does_not_fit() -> None:
    other = signature.sign({**document.build(RECORD), "id": "261122-xyz"}, AUTHORITY, 3, NOW)
    assert "not the controller of this migration" in signature.check(other).problems[0]
    swapped = {**REPORT, "counts": {}, "signature": other["signature"]}
    assert signature.check(swapped).problems


def test_an_expired_certificate_signs_nothing() -> None:
    late: Any = copy.deepcopy(REPORT)
    late["signature"]["signed_at"] = (NOW + timedelta(days=2)).isoformat()
    assert signature.check(late).problems


@pytest.mark.parametrize(
    "text",
    [
        pytest.param(json.dumps(REPORT)[:-1] + ', "state": "SUCCEEDED"}', id="name twice"),
        pytest.param('{"a": NaN}', id="no number"),
        pytest.param("{", id="cut"),
        pytest.param("", id="empty"),
    ],
)
def test_what_reads_in_two_ways_is_not_read(text: str) -> None:
    with pytest.raises(ValueError, match=r".+"):
        signature.parse(text)


@pytest.mark.parametrize("thing", [None, [], "x", 7, {}, {"signature": []}, {"signature": {}}])
def test_what_is_no_report_is_told(thing: object) -> None:
    assert signature.check(thing).problems


@pytest.fixture
def url(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A state that does not know the migration."""
    url = f"sqlite:///{tmp_path}/state.db"
    monkeypatch.setenv("BLOCKFERRY_STATE", url)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    return url


def written(tmp_path: Path, report: object) -> str:
    path = tmp_path / "report.json"
    path.write_text(json.dumps(report))
    return str(path)


def test_check_tells_the_intact_from_the_altered(
    url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["report", "--check", written(tmp_path, REPORT), "-o", "json"]) == 0
    out, err = capsys.readouterr()
    told = json.loads(out)
    assert (told["intact"], told["authority_known"]) == (True, False)
    assert "does not know the migration" in err
    lie = {**REPORT, "counts": {**REPORT["counts"], "sent_bytes": 1}}
    assert main(["report", "--check", written(tmp_path, lie), "-o", "json"]) == 20
    told = json.loads(capsys.readouterr().out)
    assert told["problems"] == ["'counts' is not what was signed"]
    assert told["error"]["reason"] == "REPORT_ALTERED"


def test_a_forger_with_an_authority_of_his_own_is_found_where_the_migration_is_known(
    url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    forged = signature.sign(document.build(RECORD), Authority.create(RECORD.id, NOW), 3, NOW)
    path = written(tmp_path, forged)
    assert main(["report", "--check", path]) == 0, "nobody here can know"
    assert main(["report", "--check", path, "--authority", AUTHORITY.fingerprint]) == 20
    store = StateStore.open(url)
    store.create(RECORD.id, RECORD.spec, "a", "b")
    store.set_facts(RECORD.id, authority=AUTHORITY.fingerprint)
    store.close()
    assert main(["report", "--check", path]) == 20
    assert "it was signed by" in capsys.readouterr().err
    assert main(["report", "--check", written(tmp_path, REPORT)]) == 0


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        pytest.param(["report"], 2, id="of nothing"),
        pytest.param(["report", "x", "--check", "y"], 2, id="of both"),
        pytest.param(["report", "--check", "/nonexistent"], 11, id="no file"),
    ],
)
def test_what_cannot_be_meant(url: str, arguments: list[str], code: int) -> None:
    assert main(arguments) == code
