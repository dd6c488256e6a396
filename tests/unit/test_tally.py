"""Requests are counted by what they are, and judged."""

from collections import Counter

import pytest

from tests.fleet_demo import REQUESTS_MAX, of_requests
from tests.sim.tally import kind_of

SERVER = "0d4c1c1e-66fd-4b5c-9d1b-1f0f0b8d1c11"
PROJECT = "8d2f6c9fa0cf4a0f8d2f6c9fa0cf4a0f"


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        (f"/v2.1/servers/{SERVER}/os-volume_attachments/{SERVER}",
         "/servers/{id}/os-volume_attachments/{id}"),
        (f"/v3/{PROJECT}/volumes/detail", "/volumes/detail"),
        (f"/v3/{PROJECT}/os-quota-sets/{PROJECT}", "/os-quota-sets/{id}"),
        (f"/v2.0/ports/{SERVER}/tags/blockferry-migration=x", "/ports/{id}/tags/{tag}"),
        ("/v3/auth/tokens", "/auth/tokens"),
        ("/", "/"),
    ],
)  # fmt: skip
def test_what_is_particular_is_left_out(path: str, kind: str) -> None:
    assert kind_of("GET", path) == f"GET {kind}"


@pytest.mark.parametrize("pooled", [True, False])
def test_more_requests_than_promised_are_told(pooled: bool) -> None:
    most = REQUESTS_MAX[pooled]
    answered = Counter({("nova", "GET /servers"): most * 10, ("keystone", "POST /auth/tokens"): 99})
    assert of_requests(answered, 10, pooled=pooled).holds
    answered["cinder", "GET /volumes"] += 1
    assert not of_requests(answered, 10, pooled=pooled).holds
