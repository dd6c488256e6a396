"""The fleet file's grammar: every key, its shape and its meaning, once.

`read_fleet` reads a file by it; `fleet_schema` is the same as JSON Schema, published as
`fleet.schema.json` beside this module.
"""

from collections.abc import Iterator
from typing import Any, Final, cast

from blockferry.limits import LANES_MAX, MAX_CHANNELS
from blockferry_controller.engine.occurrences import WORDS
from blockferry_controller.fleet import meaning
from blockferry_controller.fleet.place import Complaints, Node, parse
from blockferry_controller.fleet.shape import (
    Choice,
    Key,
    Named,
    Section,
    Some,
    Text,
    Truth,
    Whole,
)
from blockferry_controller.fleet.spec import (
    DAYS,
    AtEnd,
    Breaker,
    CloudLimits,
    Fleet,
    Gate,
    Limits,
    MetadataRule,
    Rule,
    Unmapped,
    Wave,
)
from blockferry_controller.notation import (
    parse_compression,
    parse_duration,
    parse_rate,
    parse_size,
)
from blockferry_controller.spec import Verify

SCHEMA_ID: Final = "urn:blockferry:fleet:1"
_MANY: Final = 100_000
_NAME: Final = f"^{meaning.NAME_PATTERN}$"
_OF_VOLUME: Final = frozenset({"name", "id", "type", "zone"})


def read_fleet(text: str, name: str) -> Fleet:
    """The fleet that `text` describes.

    Args:
        text: YAML or JSON.
        name: Of the file, for messages.

    Raises:
        UsageError: FLEET_INVALID, with everything that is wrong, line by line.
    """
    return fleet_of(parse(text, name), name)


def fleet_of(document: Node, name: str) -> Fleet:
    """As read_fleet, of a document that is parsed already."""
    complaints = Complaints()
    fleet = FLEET.read(document, "", complaints)
    if isinstance(fleet, Fleet):
        for path, message in _across(fleet):
            complaints.add(_at(document, path), ".".join(path), message)
    complaints.raise_any(name)
    return cast("Fleet", fleet)


def fleet_schema() -> dict[str, Any]:
    """JSON Schema of a fleet file."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": SCHEMA_ID,
        "title": "Blockferry fleet file",
        **FLEET.schema(),
    }


def _across(fleet: Fleet) -> Iterator[tuple[tuple[str, ...], str]]:
    """What only shows when several keys are seen together: where, and what is wrong."""
    if fleet.source == fleet.destination:
        yield ("to",), f"is {fleet.destination}, as is from: name two clouds"
    waves = [wave.name for wave in fleet.waves]
    for name in sorted({name for name in waves if waves.count(name) > 1}):
        yield ("waves",), f"has several waves named {name}"
    for volume, override in fleet.overrides.items():
        if override.wave and override.wave not in waves:
            said = f"there is no wave {override.wave}; there are {', '.join(waves)}"
            yield ("volumes", volume, "wave"), said
    hooks = [hook.name for hook in fleet.hooks]
    for name in sorted({name for name in hooks if hooks.count(name) > 1}):
        yield ("hooks",), f"has several hooks named {name}"
    for cloud in fleet.limits.clouds:
        if cloud not in (fleet.source, fleet.destination):
            said = f"is no cloud of this fleet: it has {fleet.source} and {fleet.destination}"
            yield ("limits", "clouds", cloud), said


def _at(document: Node, path: tuple[str, ...]) -> Node:
    """The value at `path`, or the nearest there is on the way to it."""
    for key in path:
        pairs = document.value if document.kind == "mapping" else []
        found = [one for name, one in cast("list[tuple[Node, Node]]", pairs) if name.value == key]
        if not found:
            break
        document = found[0]
    return document


_DURATION = Text(parse_duration, example="30m")
_TEXTS = Some(Text())
_VERIFY = Choice(tuple(way.value for way in Verify))
_RATE = Text(parse_rate, example="200MiB/s")
_SIZE = Text(parse_size, example="10GiB")

_CONDITION: Final = {
    "ids": Key(_TEXTS, "Ids of volumes; together with names, one of both is enough."),
    "names": Key(_TEXTS, "Names of volumes, or patterns such as db-*."),
    "projects": Key(_TEXTS, "Ids of the projects that own them."),
    "types": Key(_TEXTS, "Volume types, or patterns."),
    "zones": Key(_TEXTS, "Availability zones, or patterns."),
    "metadata": Key(Named(Text()), "Keys that must be there, and a pattern for each value."),
    "size": Key(
        Section(
            meaning.size_range,
            {
                "min": Key(_SIZE, "Least size, inclusive.", name="least"),
                "max": Key(_SIZE, "Greatest size, inclusive.", name="most"),
            },
        ),
        "Range of sizes.",
    ),
    "instances": Key(_TEXTS, "Ids of instances: their volumes."),
}
_WHERE = Section(meaning.condition, _CONDITION)


def _rules(of: str) -> Section:
    return Section(
        meaning.renaming,
        {
            "rules": Key(
                Some(
                    Section(
                        Rule,
                        {
                            "match": Key(Text(), f"A {of} of the source, or a pattern.", True),
                            "to": Key(
                                Text(meaning.template(_OF_VOLUME)),
                                "What it becomes; may hold {name}, {id}, {type}, {zone}.",
                                True,
                            ),
                            "where": Key(_WHERE, "Only for these volumes."),
                        },
                    )
                ),
                "The first that matches wins.",
            ),
            "unmapped": Key(
                Choice(tuple(way.value for way in Unmapped)),
                "What no rule matches: refuse the volume, or do as `migrate` does. [default]",
            ),
        },
    )


_METADATA = Section(
    meaning.metadata,
    {
        "rules": Key(
            Some(
                Section(
                    MetadataRule,
                    {
                        "match": Key(Text(), "A key, or a pattern.", True),
                        "to": Key(
                            Text(meaning.template(frozenset({"key"}))), "The new key. [{key}]"
                        ),
                        "value": Key(
                            Text(meaning.template(_OF_VOLUME | {"value"})),
                            "The new value. [{value}]",
                        ),
                        "drop": Key(Truth(), "Leave it out."),
                    },
                )
            ),
            "For each key the first that matches wins; what no rule matches is kept.",
        ),
        "set": Key(
            Named(Text(meaning.template(_OF_VOLUME))),
            "Keys that every new volume gets.",
            name="added",
        ),
    },
)

_CLOUD_LIMITS = Section(
    CloudLimits,
    {
        "concurrency": Key(Whole(1, _MANY), "Volumes at a time."),
        "bandwidth": Key(_RATE, "In or out, on the wire.", name="bandwidth_bytes_per_second"),
        "types": Key(Named(Whole(1, _MANY)), "Volumes of one type, its backend, at a time."),
    },
)

FLEET: Final = Section(
    meaning.fleet,
    {
        "fleet": Key(
            Text(meaning.name, pattern=_NAME),
            "Its name and id; the same name goes on with the same fleet.",
            True,
            "name",
        ),
        "from": Key(Text(), "The source cloud, as in clouds.yaml.", True, "source"),
        "to": Key(Text(), "The destination cloud.", True, "destination"),
        "select": Key(Section(meaning.selection, _CONDITION), "Which volumes.", True),
        "exclude": Key(Some(_WHERE), "Of those, which not: any of these."),
        "map": Key(
            Section(
                meaning.mappings,
                {
                    "type": Key(_rules("volume type"), "Volume types.", name="types"),
                    "zone": Key(_rules("availability zone"), "Zones.", name="zones"),
                    "name": Key(_rules("name"), "Names of volumes.", name="names"),
                    "metadata": Key(_METADATA, "Metadata."),
                },
            ),
            "What things of the source become.",
            name="mappings",
        ),
        "volumes": Key(
            Named(
                Section(
                    meaning.override,
                    {
                        "type": Key(Text(), "Its volume type."),
                        "zone": Key(Text(), "Its availability zone."),
                        "name": Key(Text(), "Its new name."),
                        "size": Key(_SIZE, "Its new size, whole GiB, not below the source's."),
                        "metadata": Key(Named(Text()), "Keys added or replaced."),
                        "wave": Key(Text(), "Its wave."),
                        "priority": Key(Whole(-1000, 1000), "Higher goes first in its wave. [0]"),
                        "skip": Key(Text(), "Why it is left out."),
                        "verify": Key(_VERIFY, "What is proven of it."),
                    },
                )
            ),
            "What holds for single volumes, by id or name, whatever rules say.",
            name="overrides",
        ),
        "limits": Key(
            Section(
                Limits,
                {
                    "concurrency": Key(Whole(1, _MANY), "Volumes at a time. [4]"),
                    "bandwidth": Key(
                        _RATE, "Of all together, on the wire.", name="bandwidth_bytes_per_second"
                    ),
                    "clouds": Key(Named(_CLOUD_LIMITS), "By cloud."),
                },
            ),
            "What may go on at once.",
        ),
        "pool": Key(
            Section(
                meaning.pool,
                {
                    "max": Key(Whole(1, _MANY), "Pairs at a time.", True, "most"),
                    "min": Key(
                        Whole(0, _MANY),
                        "Pairs that are kept without regard to idle, while volumes are left, for "
                        "ten hours since their boot. [0]",
                        name="least",
                    ),
                    "idle": Key(
                        _DURATION,
                        "Others that nobody was in for so long are deleted; 10m at most. [5m]",
                        name="idle_seconds",
                    ),
                    "lanes": Key(
                        Whole(1, LANES_MAX), "Volumes that a pair serves side by side. [1]"
                    ),
                },
            ),
            "Volumes share pairs of instances. [each volume has its own]",
        ),
        "windows": Key(
            Section(
                meaning.windows,
                {
                    "time_zone": Key(Text(meaning.time_zone, example="Europe/Berlin"), "[UTC]"),
                    "open": Key(
                        Some(
                            Section(
                                meaning.opening,
                                {
                                    "days": Key(Some(Choice(DAYS), 1), "Of its beginning. [all]"),
                                    "from": Key(
                                        Text(meaning.time_of_day), "As 22:00.", True, "since"
                                    ),
                                    "to": Key(
                                        Text(meaning.time_of_day),
                                        "As 06:00; not after `from`: on the next day.",
                                        True,
                                        "until",
                                    ),
                                },
                            ),
                            1,
                        ),
                        "When volumes may move.",
                        True,
                        "openings",
                    ),
                    "at_end": Key(
                        Choice(tuple(way.value for way in AtEnd)),
                        "Running volumes when it closes. [pause]",
                    ),
                    "last_start": Key(
                        _DURATION,
                        "So long before it closes, nothing new begins.",
                        name="last_start_seconds",
                    ),
                },
            ),
            "When volumes may move. [always]",
        ),
        "waves": Key(
            Some(
                Section(
                    Wave,
                    {
                        "name": Key(Text(meaning.name, pattern=_NAME), "Its name.", True),
                        "select": Key(_WHERE, "Which volumes. [all that are left]"),
                        "gate": Key(
                            Section(
                                Gate,
                                {
                                    "approval": Key(Truth(), "A person must approve it."),
                                    "failures_below": Key(
                                        Text(meaning.percent, example="5%"),
                                        "Share of the wave before that may have failed.",
                                    ),
                                },
                            ),
                            "What must hold before it begins.",
                        ),
                    },
                ),
                1,
            ),
            "One after another; the first that matches takes a volume. [one of all]",
        ),
        "breaker": Key(
            Section(
                Breaker,
                {
                    "failures": Key(Whole(1, _MANY), "So many of one reason. [3]"),
                    "within": Key(_DURATION, "In this time. [10m]", name="within_seconds"),
                },
            ),
            "Stops a wave when many fail the same way.",
        ),
        "attempts": Key(Whole(1, 20), "Tries of a volume when what failed may pass. [2]"),
        "verify": Key(_VERIFY, "What is proven at the end. [as configured]"),
        "compression": Key(
            Text(parse_compression, example="zstd:3"), "auto, none or zstd:LEVEL. [as configured]"
        ),
        "channels": Key(Whole(1, MAX_CHANNELS), "TCP connections a volume. [they choose]"),
        "allow_downgrade": Key(Truth(), "As `migrate --allow-downgrade`."),
        "skip_checks": Key(_TEXTS, "As `migrate --skip-check`."),
        "hooks": Key(
            Some(
                Section(
                    meaning.hook,
                    {
                        "name": Key(Text(meaning.name, pattern=_NAME), "Its name.", True),
                        "on": Key(Some(Choice(tuple(WORDS.values()))), "Which events. [all]"),
                        "command": Key(
                            _TEXTS, "A command and its words; gets the event on standard input."
                        ),
                        "url": Key(
                            Text(meaning.url, example="https://chat.example/hooks/7"),
                            "Where the event is posted to, as JSON.",
                        ),
                        "secret_file": Key(Text(), "What signs it is read from there."),
                        "timeout": Key(_DURATION, "Of one try. [10s]", name="timeout_seconds"),
                        "attempts": Key(Whole(1, 20), "Tries of an event. [5]"),
                    },
                )
            ),
            "Who is told what happens.",
        ),
    },
)
"""A fleet file; what is in brackets is what holds without the key."""
