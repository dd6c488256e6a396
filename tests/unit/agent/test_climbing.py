"""Speeds by place are what was seen, or is plausible, in MiB/s of payload before compression."""

import random
from collections import deque
from typing import Final

import pytest

from blockferry.limits import MIB
from blockferry_agent.climbing import Climb

RAW, MINUS_5, _, ONE, THREE, _, _ = range(7)
OFFERED: Final = (RAW, MINUS_5, ONE, THREE)
"""What the best of is the yardstick: raw and zstd -5, 1 and 3."""


def copy(
    speeds: list[float], gib: float, *, noise: float, seed: int, wire: float, on_way: int = 0
) -> float:
    """Seconds that a copy takes over those of the best fixed place.

    Args:
        speeds: By place.
        gib: Payload.
        noise: Of the speed, from one 16 MiB to the next.
        seed: Of the noise.
        wire: Speed from which on frames queue for it.
        on_way: Chunks of 1 MiB that still go as they were when a setting is chosen.
    """
    dice, climb, now, best = random.Random(seed), Climb(len(speeds), ONE), 0.0, 0.0
    factor, ahead = 1.0, deque([ONE] * on_way)
    for chunk in range(int(gib * 1024)):
        if chunk % 16 == 0:
            factor = dice.uniform(1 - noise, 1 + noise)
        ahead.append(climb.place)
        place = ahead.popleft()
        now += 1 / (speeds[place] * factor)
        best += 1 / (max(speeds[offered] for offered in OFFERED) * factor)
        climb.observe(MIB, now, queued=speeds[place] >= wire)
    return now / best


SCENES: dict[str, tuple[list[float], float]] = {
    "one slow core": ([180, 232, 238, 240, 205, 95, 55], 1e9),
    "idle cores, raw is best": ([800, 560, 480, 400, 300, 120, 60], 1e9),
    "two cores that are slow with all": ([110, 85, 78, 70, 55, 30, 20], 1e9),
    "text, one slow core": ([200, 420, 430, 520, 500, 200, 120], 1e9),
    "100 Mbit/s": ([12, 17.5, 19, 22, 23.5, 25, 25.5], 0),
    "1 Gbit/s": ([112, 165, 180, 200, 215, 120, 70], 110),
    "a limit": ([50] * 7, 0),
    "noise: no level matters": ([300] * 7, 1e9),
}


@pytest.mark.parametrize(("speeds", "wire"), SCENES.values(), ids=SCENES.keys())
@pytest.mark.parametrize("noise", [0.0, 0.05, 0.1])
def test_a_long_copy_is_as_fast_as_the_best_fixed_level(
    speeds: list[float], wire: float, noise: float
) -> None:
    ratios = [copy(speeds, 8, noise=noise, seed=seed, wire=wire) for seed in range(5)]
    assert sum(ratios) / 5 <= 1.05, ratios


@pytest.mark.parametrize("noise", [0.0, 0.1])
def test_one_slow_core_does_not_drift_to_raw(noise: float) -> None:
    speeds, wire = SCENES["one slow core"]
    for seed in range(10):
        assert copy(speeds, 1.5, noise=noise, seed=seed, wire=wire) <= 1.05


def test_a_slow_machine_is_not_taken_for_a_slow_wire_for_long() -> None:
    speeds, wire = SCENES["two cores that are slow with all"]
    for seed in range(10):
        assert copy(speeds, 1, noise=0.05, seed=seed, wire=wire) <= 1.06


@pytest.mark.parametrize("noise", [0.0, 0.05])
def test_raw_is_found_soon_where_it_is_best(noise: float) -> None:
    speeds, wire = SCENES["idle cores, raw is best"]
    for seed in range(10):
        assert copy(speeds, 1, noise=noise, seed=seed, wire=wire) <= 1.15


def test_nothing_moves_before_it_was_seen() -> None:
    climb = Climb(7, ONE)
    # 8 MiB for the buffers, and less than a window.
    for turn in range(31):
        climb.observe(MIB, turn * 0.005, queued=False)
        assert climb.place == RAW


@pytest.mark.parametrize(("wire", "most"), [(118, 22), (12, 12)], ids=["1 Gbit/s", "100 Mbit/s"])
def test_a_slow_wire_shows_soon_and_once(wire: float, most: int) -> None:
    """Buffers swallow the first 10 MiB."""
    climb, now, raw = Climb(7, ONE), 0.0, 0
    for _ in range(600):
        place = climb.place
        raw += place == RAW
        now += 1 / {RAW: 600 if raw <= 10 else wire, ONE: wire * 2.6}.get(place, wire * 2.2)
        # Two cores compress as fast as 1 Gbit/s carries it: then nothing queues.
        climb.observe(MIB, now, queued=place == RAW or wire < 100)
    assert 10 < raw <= most


def test_memory_that_is_taken_at_first_is_no_slow_wire() -> None:
    climb, now, places = Climb(7, ONE), 0.0, [RAW]
    for chunk in range(800):
        now += 1 / ((190 if chunk < 20 else 650) if climb.place == RAW else 310)
        climb.observe(MIB, now, queued=climb.place == RAW)
        places.append(climb.place)
    assert set(places) == {RAW, MINUS_5}
    assert places.count(RAW) > 720


def on_a_slow_wire() -> tuple[Climb, float]:
    """One that has just begun anew, and the time."""
    climb, now = Climb(7, ONE), 0.0
    while climb.place == RAW:
        now += 0.01
        climb.observe(MIB, now, queued=True)
    return climb, now


def visited(speeds: dict[int, float]) -> list[int]:
    """The places of 8 GiB over a wire that was slow at first only; frames of raw queue."""
    climb, now = on_a_slow_wire()
    places = []
    for _ in range(8 * 1024):
        places.append(climb.place)
        now += 1 / speeds.get(climb.place, 310)
        climb.observe(MIB, now, queued=climb.place == RAW)
    return places


def test_what_a_jump_passed_over_is_let_be_where_the_jump_was_far_better() -> None:
    places = visited({RAW: 650, MINUS_5: 400})
    jump = places.index(RAW)
    assert set(places[jump : jump + 1024]) == {RAW}


def test_what_a_jump_passed_over_is_tried_where_it_was_a_little_better() -> None:
    places = visited({RAW: 350, MINUS_5: 400})
    jump = places.index(RAW)
    assert MINUS_5 in places[jump : jump + 1024]
    assert places[-1] == MINUS_5


def test_a_hopeless_try_is_short() -> None:
    climb, now, tried = Climb(2, 1), 0.0, 0
    for _ in range(200):
        now += 0.1 if climb.place == 1 else 0.002
        tried += climb.place == 1
        climb.observe(MIB, now, queued=False)
        if tried and climb.place == 0:
            break
    # 12 MiB on their way already, and 8 to see.
    assert tried == 20


CARRIED_BY_A_GBIT: Final = {
    "os": [112.0, 232.0, 270.0, 289.0, 244.0, 120.0, 70.0],
    "full": [112.0, 210.0, 255.0, 268.0, 236.0, 110.0, 60.0],
    "text": [112.0, 152.0, 230.0, 282.0, 282.0, 140.0, 80.0],
}
"""About as over 1 Gbit/s, where two cores compress as fast as it carries: nothing queues."""


@pytest.mark.parametrize("speeds", CARRIED_BY_A_GBIT.values(), ids=CARRIED_BY_A_GBIT.keys())
def test_tries_cost_little_even_where_one_is_hopeless(speeds: list[float]) -> None:
    """Raw comes first where nothing queues; tried again and again it cost 8 % and more."""
    for seed in range(10):
        assert copy(speeds, 1, noise=0.05, seed=seed, wire=1e9, on_way=12) <= 1.06


def test_what_was_hopeless_is_tried_again_once_work_is_slower_than_it_was_there() -> None:
    climb, now = Climb(2, 1), 0.0

    def work(mib: int, speeds: tuple[float, float]) -> int:
        """How many MiB of these went the hopeless way."""
        nonlocal now
        tried = 0
        for _ in range(mib):
            now += 1 / speeds[climb.place]
            tried += climb.place == 1
            climb.observe(MIB, now, queued=True)
        return tried

    assert work(700, (600, 200)) == 20
    # The wire has got other work: now compression would be better.
    assert work(600, (100, 180)) > 300


def test_a_start_that_is_slow_for_raw_does_not_decide() -> None:
    """What was seen of 967 MiB where the memory for whole chunks had to be found first."""
    climb, now = Climb(7, ONE), 0.0
    for chunk in range(967):
        place = climb.place
        speed = SCENES["idle cores, raw is best"][0][place]
        if place == RAW and chunk < 96:
            speed = 210
        now += 1 / speed
        climb.observe(MIB, now, queued=place == RAW)
    # Raw from the first chunk to the last takes 1.55 s, -5 takes 1.73.
    assert now <= 1.5
    assert climb.place == RAW


def test_what_queued_during_a_try_says_nothing_of_home() -> None:
    """At home a little less than half of the frames queue: the way to look is down, again."""
    climb, now, at_home = Climb(7, ONE), 0.0, 0
    tried: list[int] = []
    for _ in range(300):
        place = climb.place
        at_home += place == MINUS_5
        # All of a try's queue, and of home's 11 in 24.
        queued = place != MINUS_5 or at_home % 24 < 11
        now += 1 / (239 if place == MINUS_5 else 180)
        if not tried or tried[-1] != place:
            tried.append(place)
        climb.observe(MIB, now, queued=queued)
    # The way up from raw is tried first, but once only.
    assert tried[:5] == [RAW, MINUS_5, ONE, MINUS_5, RAW]
