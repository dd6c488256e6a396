"""What rate is made of marks."""

import pytest

from blockferry_agent.throughput import Mark, rate_of


@pytest.mark.parametrize(
    ("marks", "rate"),
    [
        pytest.param([], 0, id="nothing was done"),
        pytest.param([(1.0, 16)], 0, id="one mark has no rate"),
        pytest.param([(1.0, 100), (2.0, 200)], 100, id="two"),
        pytest.param([(0.0, 10), (10.0, 400), (11.0, 800)], 400, id="up to speed late"),
        pytest.param([(0.0, 100), (2.0, 900)], 400, id="nearly all at the end"),
    ],
)
def test_the_rate_is_that_of_the_later_half(marks: list[tuple[float, int]], rate: int) -> None:
    assert rate_of([Mark(*one) for one in marks]) == rate
