"""`list`, `show FLEET` and `history` with more rows than a person reads."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from blockferry.errors import UsageError
from blockferry_controller.__main__ import main
from blockferry_controller.cli.history import parse_since
from blockferry_controller.cli.session import Session
from blockferry_controller.engine.pairs import Order
from tests.fakes.ferry import KeysOfAll
from tests.unit.controller.engine.crowd import crowd, name

COUNT = 130


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> str:
    url = f"sqlite:///{tmp_path_factory.mktemp('crowd')}/state.db"
    crowd(url, COUNT).close()
    return url


def run(url: str, capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[str, str]:
    assert main(["--state", url, *arguments], Session(config_path=Path("/dev/null"))) == 0
    told = capsys.readouterr()
    return told.out, told.err


def test_a_table_has_the_newest_and_says_what_it_leaves_out(
    url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    out, err = run(url, capsys, "list")
    lines = out.splitlines()
    assert len(lines) == 1 + 100
    assert name(COUNT - 1) in lines[-1]
    assert "30 older ones are not shown; --limit 0 shows all" in err
    out, err = run(url, capsys, "list", "--limit", "0")
    assert len(out.splitlines()) == 1 + COUNT
    assert not err


@pytest.mark.parametrize(("output", "parse"), [("json", json.loads), ("yaml", yaml.safe_load)])
@pytest.mark.parametrize("command", ["list", "history"])
def test_programs_get_all_unless_they_ask_for_less(
    url: str, capsys: pytest.CaptureFixture[str], output: str, parse: Any, command: str
) -> None:
    rows = parse(run(url, capsys, command, "-o", output)[0])
    assert len({row["id"] for row in rows}) == len(rows) == COUNT + (command == "history")
    some = parse(run(url, capsys, command, "-o", output, "-n", "2")[0])
    # The newest: of a list they are the last, of a history the first.
    assert some == (rows[-2:] if command == "list" else rows[:2])


@pytest.mark.parametrize("options", [[], ["--fleets"]], ids=["migrations", "fleets"])
@pytest.mark.parametrize("output", ["json", "yaml"])
def test_nothing_is_an_empty_array(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], output: str, options: list[str]
) -> None:
    out, _ = run(f"sqlite:///{tmp_path}/state.db", capsys, "list", *options, "-o", output)
    assert yaml.safe_load(out) == []


def test_fleets_are_listed_with_where_their_volumes_stand(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    url = f"sqlite:///{tmp_path}/state.db"
    store = crowd(url, 20)
    names = ["shop", *[f"fleet-{number:03d}" for number in range(119)]]
    for one in names[1:]:
        store.fleets.create(one, ("west", "east"), {"fleet": one}, {}, [])
    store.close()
    listed = json.loads(run(url, capsys, "list", "--fleets", "-o", "json")[0])
    assert [one["fleet"] for one in listed] == names
    assert listed[0]["counts"] == {"FAILED": 2, "SKIPPED": 2, "SUCCEEDED": 14, "WAITING": 2}
    assert listed[1] == {
        **listed[1], "state": "PENDING", "from": "west", "to": "east", "counts": {}, "message": ""
    }  # fmt: skip
    out, err = run(url, capsys, "list", "--fleets")
    assert len(out.splitlines()) == 1 + 100
    assert "20 older ones are not shown; --limit 0 shows all" in err
    out, _ = run(url, capsys, "list", "--fleets", "-n", "0")
    assert out.splitlines()[1].split()[:6] == ["shop", "PENDING", "east", "to", "west", "20"]
    assert "14 succeeded" in out
    some = json.loads(run(url, capsys, "list", "--fleets", "-n", "2", "-o", "json")[0])
    assert some == listed[-2:]


def test_of_a_fleet_those_that_failed_come_first(
    url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    out, err = run(url, capsys, "show", "shop", "-n", "20")
    table = out.splitlines()[1:21]
    assert [line.split()[4] for line in table] == ["FAILED"] * 13 + ["WAITING"] * 7
    assert "20 volumes are shown" in err
    assert "13 failed" in out


def test_of_a_fleet_its_pairs_are_shown_with_who_is_in_which_lane(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    url = f"sqlite:///{tmp_path}/state.db"
    store = crowd(url, 4)
    assert "pair-" not in run(url, capsys, "show", "shop")[0]
    held = []
    for number in range(3):
        own = store.get(name(number))
        order = Order(own.id, own.epoch, "shop", "east", "west", "", 2, 2)
        held.append(store.pairs.take(order, iter([f"pair-{number}"]).__next__, KeysOfAll()))
    first, second, third = (one for one in held if one is not None)
    store.pairs.give_back(first, {})
    store.pairs.close(second)
    store.pairs.end(third.pair)
    store.close()

    shown = json.loads(run(url, capsys, "show", "shop", "-o", "json")[0])
    assert len(shown["volumes"]) == 4
    draining, ending = shown["pairs"]
    assert draining == {
        **draining, "id": "pair-0", "state": "DRAINING", "served": 1,
        "lanes": [{"lane": 0, "migration": "", "served": 1},
                  {"lane": 1, "migration": name(1), "served": 0}],
    }  # fmt: skip
    assert (ending["id"], ending["state"]) == ("pair-2", "ENDING")
    assert yaml.safe_load(run(url, capsys, "show", "shop", "-o", "yaml")[0]) == shown
    out, _ = run(url, capsys, "show", "shop")
    (line,) = [line for line in out.splitlines() if line.startswith("pair-0")]
    assert line.split()[1:7] == ["DRAINING", "1", "of", "2", "taken", "1"]
    assert name(1) in line


def test_history_of_one_of_a_fleet_and_since(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    one = json.loads(run(url, capsys, "history", name(3), "-o", "json")[0])
    assert one == [
        {
            "id": f"{3:032x}", "time": "2026-11-20T22:00:03.000+00:00", "event": "started",
            "fleet": "shop", "migration": name(3),
            "volume": {"id": "v-3", "name": "v-3", "size_bytes": 1 << 30, "wave": "w0"},
            "data": {"attempt": 1},
        }
    ]  # fmt: skip
    late = ["history", "shop", "--since", "2026-11-20T22:02:05Z", "-o", "json"]
    events = [row["event"] for row in json.loads(run(url, capsys, *late)[0])]
    assert events == ["planned", *["started"] * 5]
    out, err = run(url, capsys, "history")
    assert len(out.splitlines()) == 1 + 50
    assert "the newest 50; --limit 0 shows all" in err


@pytest.mark.parametrize("text", ["yesterday", "", "2026-13-01", "-1h", "12"])
def test_what_is_no_time_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="no time"):
        parse_since(text)
