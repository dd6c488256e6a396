"""Pages, bodies and creations, on canned answers."""

import json
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, cast

import pytest
import requests

from blockferry.errors import (
    BusyError,
    InternalError,
    NotFoundError,
    PreconditionError,
    UnreachableError,
)
from blockferry_controller.clouds.fenced import fenced
from blockferry_controller.clouds.openstack.networking import Networking
from blockferry_controller.clouds.openstack.refusals import TransientError
from blockferry_controller.clouds.openstack.rest import Rest, Service, segment
from blockferry_controller.clouds.openstack.servers import Servers
from blockferry_controller.clouds.openstack.waiting import Patience


class NoClock:
    """Sleeping is free and time jumps, so that outages end at once."""

    def __init__(self) -> None:
        self.now = 0.0

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


class Canned:
    """Stands in for a connection and each of its services; remembers what was asked."""

    def __init__(self, answer: Callable[[str, str, dict[str, Any]], tuple[int, str]]) -> None:
        self.answer = answer
        self.asked: list[tuple[str, str, dict[str, Any]]] = []

    def __getattr__(self, name: str) -> "Canned":
        return self

    def request(self, path: str, method: str, **options: Any) -> requests.Response:
        with options["rate_semaphore"]:
            self.asked.append((method, path, options))
        status, body = self.answer(method, path, options)
        response = requests.Response()
        response.status_code = status
        response._content = body.encode()
        return response


def rest(answer: Callable[[str, str, dict[str, Any]], tuple[int, str]]) -> tuple[Rest, Canned]:
    canned = Canned(answer)
    patience = Patience(NoClock(), outage_seconds=10)
    return Rest(canned, "east", patience), canned  # type: ignore[arg-type]


def page(method: str, path: str, options: dict[str, Any]) -> tuple[int, str]:
    """Two pages of volumes; the links name the host that is behind the proxy."""
    query = options["params"] or {}
    if query.get("marker") == "b":
        return 200, json.dumps({"volumes": [{"id": "c"}]})
    following = f"http://inner:8776/v3/p/volumes/detail?name={query['name']}&marker=b&limit=2"
    links = [{"rel": "next", "href": following}]
    return 200, json.dumps({"volumes": [{"id": "a"}, {"id": "b"}], "volumes_links": links})


def test_pages_are_followed_by_their_query_alone() -> None:
    calls, canned = rest(page)
    found = calls.items(Service.VOLUME, "/volumes/detail", "volumes", "list", {"name": "x"})
    assert [one["id"] for one in found] == ["a", "b", "c"]
    assert [path for _, path, _ in canned.asked] == ["/volumes/detail"] * 2
    assert canned.asked[1][2]["params"] == {"name": "x", "marker": "b", "limit": "2"}


def test_pages_of_images() -> None:
    def answer(method: str, path: str, options: dict[str, Any]) -> tuple[int, str]:
        if options["params"]:
            return 200, '{"images": [{"id": "2"}]}'
        return 200, '{"images": [{"id": "1"}], "next": "/v2/images?marker=1"}'

    calls, _ = rest(answer)
    found = calls.items(Service.IMAGE, "/images", "images", "list")
    assert [one["id"] for one in found] == ["1", "2"]


def test_a_list_that_goes_in_circles_ends() -> None:
    def answer(method: str, path: str, options: dict[str, Any]) -> tuple[int, str]:
        return 200, '{"images": [{"id": "1"}], "next": "/v2/images?marker=1"}'

    calls, canned = rest(answer)
    calls.items(Service.IMAGE, "/images", "images", "list")
    assert len(canned.asked) == 2


def test_a_list_without_end_is_an_error() -> None:
    def answer(method: str, path: str, options: dict[str, Any]) -> tuple[int, str]:
        marker = int((options["params"] or {}).get("marker", 0)) + 1
        return 200, json.dumps({"images": [{"id": marker}], "next": f"/v2/images?marker={marker}"})

    calls, canned = rest(answer)
    with pytest.raises(InternalError):
        calls.items(Service.IMAGE, "/images", "images", "list")
    assert len(canned.asked) == 1000


@pytest.mark.parametrize(
    ("service", "microversion"),
    [
        (Service.COMPUTE, "2.1"),
        (Service.VOLUME, "3.0"),
        (Service.NETWORK, None),
        (Service.IMAGE, None),
    ],
)
def test_the_least_microversion_is_asked_for(service: Service, microversion: str | None) -> None:
    calls, canned = rest(lambda *_: (200, "{}"))
    calls.get(service, "/x", "look")
    assert canned.asked[0][2]["microversion"] == microversion


def test_not_there_is_none_and_gone_is_false() -> None:
    calls, _ = rest(lambda *_: (404, '{"itemNotFound": {"message": "no"}}'))
    assert calls.find(Service.VOLUME, "/volumes/1", "look") is None
    assert calls.delete(Service.VOLUME, "/volumes/1", "delete") is False
    with pytest.raises(NotFoundError):
        calls.get(Service.VOLUME, "/volumes/1", "look")


def test_a_login_page_in_between_is_no_answer() -> None:
    calls, _ = rest(lambda *_: (200, "<html>Please log in</html>"))
    with pytest.raises(UnreachableError, match="login page"):
        calls.get(Service.VOLUME, "/volumes", "look")


@pytest.mark.parametrize(("status", "body"), [(204, ""), (202, "accepted"), (200, "[1]")])
def test_answers_without_a_body_of_ours(status: int, body: str) -> None:
    calls, _ = rest(lambda *_: (status, body))
    assert calls.get(Service.VOLUME, "/x", "look") == {}


def test_a_creation_is_sent_once() -> None:
    calls, canned = rest(lambda *_: (500, ""))
    with pytest.raises(TransientError):
        calls.post(Service.VOLUME, "/volumes", {}, "create")
    assert len(canned.asked) == 1
    with pytest.raises(UnreachableError):
        calls.post(Service.VOLUME, "/x/action", {}, "act", repeatable=True)
    assert len(canned.asked) > 4


def test_after_a_lost_answer_it_is_looked_for_first() -> None:
    made: list[str] = []

    def create() -> str:
        made.append("it")
        raise TransientError("CLOUD_FAILS", "lost.")

    calls, _ = rest(lambda *_: (200, "{}"))
    assert calls.find_or_create(lambda: next(iter(made), None), create) == "it"
    assert made == ["it"]


@pytest.mark.parametrize("verb", ["ensure", "post", "put", "delete"])
def test_who_loses_its_right_in_an_outage_repeats_no_change(verb: str) -> None:
    """Others have gone on meanwhile: what it made, nobody would look for."""
    lost = False

    def answer(method: str, path: str, options: dict[str, Any]) -> tuple[int, str]:
        nonlocal lost
        lost = lost or method != "GET"
        return 503, ""

    def fence() -> None:
        if lost:
            raise BusyError("LEASE_LOST", "another has it.")

    calls, canned = rest(answer)
    verbs: dict[str, Callable[[], object]] = {
        "ensure": lambda: calls.find_or_create(
            lambda: None, lambda: calls.post(Service.COMPUTE, "/servers", {}, "create")
        ),
        "post": lambda: calls.post(Service.COMPUTE, "/x/action", {}, "act", repeatable=True),
        "put": lambda: calls.put(Service.NETWORK, "/x", "set"),
        "delete": lambda: calls.delete(Service.COMPUTE, "/x", "delete"),
    }
    with pytest.raises(UnreachableError):
        verbs[verb]()
    assert len(canned.asked) > 1, "nobody's fence: it is repeated"

    lost = False
    canned.asked.clear()
    behind: Any = SimpleNamespace(name="east", do=verbs[verb])
    cloud: Any = fenced(behind, fence)
    with pytest.raises(BusyError):
        cloud.do()
    assert len(canned.asked) == 1
    assert cloud.name == "east"


@pytest.mark.parametrize("what", ["server", "group"])
def test_an_adapter_does_not_take_that_for_the_clouds_word(what: str) -> None:
    """A 409 would be waited out for minutes."""
    lost = False

    def answer(method: str, path: str, options: dict[str, Any]) -> tuple[int, str]:
        nonlocal lost
        lost = lost or method == "DELETE"
        return (503, "") if method == "DELETE" else (200, '{"server": {"id": "s"}}')

    def fence() -> None:
        if lost:
            raise BusyError("LEASE_LOST", "another has it.")

    calls, canned = rest(answer)
    verbs = {
        "server": lambda: Servers(calls).delete("s"),
        "group": lambda: Networking(calls, "p").delete_security_group("g"),
    }
    cloud: Any = fenced(cast("Any", SimpleNamespace(do=verbs[what])), fence)
    with pytest.raises(BusyError) as caught:
        cloud.do()
    assert caught.value.reason == "LEASE_LOST"
    assert [method for method, _, _ in canned.asked].count("DELETE") == 1
    assert len(canned.asked) < 4


def test_who_loses_its_right_while_it_waits_for_its_turn_sends_nothing() -> None:
    """A service that asks for time is left alone for so long, by all."""
    calls, canned = rest(lambda *_: (200, "{}"))
    clock = calls.patience.clock
    calls._buckets["compute"].hold(60)

    def fence() -> None:
        if clock.monotonic() >= 30:
            raise BusyError("LEASE_LOST", "another has it.")

    def create() -> None:
        calls.post(Service.COMPUTE, "/servers", {}, "create")

    cloud: Any = fenced(cast("Any", SimpleNamespace(do=create)), fence)
    with pytest.raises(BusyError):
        cloud.do()
    assert canned.asked == []


def test_a_refused_creation_is_not_repeated() -> None:
    calls, canned = rest(lambda *_: (400, '{"badRequest": {"message": "no"}}'))
    with pytest.raises(PreconditionError):
        calls.find_or_create(
            lambda: None, lambda: calls.post(Service.VOLUME, "/volumes", {}, "create")
        )
    assert len(canned.asked) == 1


def test_a_segment_stays_one() -> None:
    assert segment("a/b?c#d=é") == "a%2Fb%3Fc%23d%3D%C3%A9"
