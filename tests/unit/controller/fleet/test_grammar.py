"""A fleet file: what it may say, and how all that is wrong with it is told at once."""

import json
from datetime import time
from pathlib import Path

import jsonschema
import pytest

import blockferry_controller.fleet
from blockferry.errors import UsageError
from blockferry.limits import GIB, MIB
from blockferry_controller.__main__ import main
from blockferry_controller.fleet.grammar import fleet_schema, read_fleet
from blockferry_controller.fleet.place import parse, plain
from blockferry_controller.fleet.spec import AtEnd, Condition, Gate, Opening, Pool, Rule, Unmapped
from blockferry_controller.spec import Verify

ALL = """\
fleet: shop-friday
from: east
to: west
select:
  names: ["db-*", web]
  size: {min: 1GiB, max: 2TiB}
exclude:
  - metadata: {keep: yes}
  - {names: db-scratch}
map:
  type:
    rules:
      - {match: "ssd*", to: premium, where: {metadata: {tier: gold}}}
      - {match: hdd, to: standard}
    unmapped: fail
  zone: {rules: [{match: "*", to: nova}]}
  name: {rules: [{match: "*", to: "{name}-moved"}]}
  metadata:
    rules:
      - {match: "internal:*", drop: true}
      - {match: owner, to: "old-{key}", value: "{value} ({id})"}
    set: {moved-from: east}
volumes:
  db-7: {type: fast, size: 20GiB, wave: canary, priority: 5, verify: wire}
  db-8: {skip: still in use until May}
limits:
  concurrency: 8
  bandwidth: 400MiB/s
  clouds:
    east: {concurrency: 4, bandwidth: 200MiB/s, types: {ssd: 2}}
windows:
  time_zone: Europe/Berlin
  open:
    - {days: [fri, sat], from: 22:00, to: 06:00}
    - {from: 12:00, to: 24:00}
  at_end: run-out
  last_start: 30m
waves:
  - {name: canary, select: {names: db-1}}
  - {name: rest, gate: {failures_below: 5%, approval: true}}
pool: {max: 3, min: 2, idle: 4m}
breaker: {failures: 4, within: 5m}
attempts: 3
verify: readback
compression: zstd:3
channels: 4
"""
LEAST = "fleet: f\nfrom: east\nto: west\nselect: {names: '*'}\n"


def complaints(text: str) -> str:
    with pytest.raises(UsageError) as raised:
        read_fleet(text, "fleet.yaml")
    assert raised.value.reason == "FLEET_INVALID"
    return raised.value.message


def test_every_key_is_read() -> None:
    fleet = read_fleet(ALL, "fleet.yaml")
    assert (fleet.name, fleet.source, fleet.destination) == ("shop-friday", "east", "west")
    assert fleet.select == Condition(
        names=("db-*", "web"), size_least_bytes=GIB, size_most_bytes=2048 * GIB
    )
    # YAML 1.1 would have read `yes` as true.
    assert fleet.exclude == (Condition(metadata={"keep": "yes"}), Condition(names=("db-scratch",)))
    gold = Condition(metadata={"tier": "gold"})
    assert fleet.mappings.types.rules == (
        Rule("ssd*", "premium", gold),
        Rule("hdd", "standard"),
    )
    assert fleet.mappings.types.unmapped is Unmapped.FAIL
    assert [rule.drop for rule in fleet.mappings.metadata] == [True, False]
    assert fleet.mappings.set_metadata == {"moved-from": "east"}
    assert fleet.overrides["db-7"].size_bytes == 20 * GIB
    assert fleet.overrides["db-7"].verify is Verify.WIRE
    assert fleet.overrides["db-8"].skip == "still in use until May"
    east = fleet.limits.clouds["east"]
    assert fleet.pool == Pool(3, 240, least=2)
    assert (fleet.limits.pairs, fleet.limits.at_once) == (3, 3)
    assert (east.concurrency, east.bandwidth_bytes_per_second) == (4, 200 * MIB)
    assert east.types == {"ssd": 2}
    # …and `22:00` as 1320.
    assert fleet.windows.openings == (
        Opening((4, 5), time(22), time(6)),
        Opening(tuple(range(7)), time(12), time(0)),
    )
    assert (fleet.windows.at_end, fleet.windows.last_start_seconds) == (AtEnd.RUN_OUT, 1800)
    assert fleet.waves[1].gate == Gate(approval=True, failures_below=0.05)
    assert (fleet.breaker.failures, fleet.breaker.within_seconds) == (4, 300)
    assert (fleet.attempts, fleet.verify, fleet.channels) == (3, Verify.READBACK, 4)


def test_little_is_needed() -> None:
    fleet = read_fleet(LEAST, "fleet.yaml")
    assert [wave.name for wave in fleet.waves] == ["all"]
    assert fleet.windows.openings == ()
    assert fleet.limits.concurrency == 4


def test_all_mistakes_are_told_at_once_with_their_places() -> None:
    text = ALL.replace("unmapped: fail", "unmapped: fial").replace("gate:", "gates:")
    text = text.replace("22:00", "25:00").replace("{name}-moved", "{nmae}-moved")
    said = complaints(text)
    assert "4 things are wrong in fleet.yaml" in said
    assert "line 15, column 15: map.type.unmapped: is 'fial'" in said
    assert "did you mean fail?" in said
    assert "map.name.rules[0].to: {nmae} is not known here" in said
    assert "windows.open[0].from: '25:00' is not a time of day" in said
    assert "waves[1].gates: is not known here; did you mean gate?" in said


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("limits: {concurrency: 0}", "line 5, column 23: limits.concurrency: must be a whole"),
        ("pool: {idle: 1m}", "pool.max: is missing"),
        ("pool: {max: 1, idle: 20m}", "pool: idle must be at most 10m"),
        ("pool: {max: 1, min: 2}", "pool: min must be at most max, which is 1"),
        ("limits: {bandwidth: 200}", "limits.bandwidth: '200' is not a rate"),
        ("limits: {clouds: {north: {}}}", "limits.clouds.north: is no cloud of this fleet"),
        ("waves: [{name: a}, {name: a}]", "waves: has several waves named a"),
        ("waves: []", "waves: must have at least 1"),
        ("volumes: {v: {wave: z}}", "line 5, column 21: volumes.v.wave: there is no wave z"),
        ("volumes: {v: {size: 1500MiB}}", "volumes.v: size must be whole GiB"),
        ("fleet: again", "line 5, column 1: fleet: stands here twice"),
        ("windows: {time_zone: Europe/Atlantis, open: []}", "'Europe/Atlantis' is not a time zone"),
        ("select: {}", "select: stands here twice"),
        ("map: {type: [1]}", "map.type: must be a mapping of names, not a list"),
        ("<<: {to: east}", "<<: is not known here"),
    ],
)
def test_what_cannot_be_meant_is_refused_at_its_place(line: str, said: str) -> None:
    assert said in complaints(LEAST + line + "\n")


def test_a_selection_of_nothing_is_not_one_of_everything() -> None:
    assert "selects nothing" in complaints(LEAST.replace("{names: '*'}", "{}"))


def test_what_is_missing_is_named() -> None:
    said = complaints("to: west\n")
    assert all(f"{key}: is missing" in said for key in ("fleet", "from", "select"))


@pytest.mark.parametrize("text", ["", "[]", "just words", "a: [", "{", "&a [*a]", "? [x]\n: y"])
def test_what_is_no_fleet_file_is_refused(text: str) -> None:
    complaints(text)


def test_a_few_aliases_do_not_become_a_billion_values() -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 9)]
    assert "more than" in complaints("\n".join(lines))


def test_plain_types_read_back_as_the_same_fleet() -> None:
    again = json.dumps(plain(parse(ALL, "fleet.yaml")))
    assert read_fleet(again, "plan.json") == read_fleet(ALL, "fleet.yaml")


def test_the_schema_takes_what_we_take() -> None:
    schema = fleet_schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    jsonschema.validate(plain(parse(ALL, "fleet.yaml")), schema)
    jsonschema.validate(plain(parse(LEAST, "fleet.yaml")), schema)


@pytest.mark.parametrize(("old", "new"), [("gate:", "gates:"), ("unmapped: fail", "unmapped: x")])
def test_the_schema_refuses_what_we_refuse(old: str, new: str) -> None:
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(plain(parse(ALL.replace(old, new), "f")), fleet_schema())


def test_the_published_schema_is_the_grammar(capsys: pytest.CaptureFixture[str]) -> None:
    package = Path(blockferry_controller.fleet.__path__[0])
    published = json.loads((package / "fleet.schema.json").read_text(encoding="utf-8"))
    assert published == fleet_schema()
    assert main(["fleet-schema"]) == 0
    assert json.loads(capsys.readouterr().out) == published
