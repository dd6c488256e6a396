"""`make fleet-scale` in small: the same harness, the same promises."""

import pytest

from tests.scale.promises import judge
from tests.scale.run import Plot, play

pytestmark = pytest.mark.timeout(600)


def test_five_hundred_volumes_with_errors_and_losses() -> None:
    table = judge(play(Plot(volumes=500, at_once=24, minutes=9)))
    assert [line for line in table if line.holds is False] == []
