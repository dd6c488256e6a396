"""One call to one of the cloud's services: microversion, retries, our errors.

Rules:
* A call that may be repeated (GET, PUT, DELETE, and POSTs that say so) is
  repeated through outages here. A POST that creates is sent once: when its
  answer is lost, TransientError tells the caller, who looks for what it may
  have made and only then sends it again (`find_or_create`).
* Each service has a rate (rate.py), which is kept by all that is sent from here.
* Whoever calls from behind a fence (fenced.py) is asked before each request that changes
  something: a repetition minutes later, too.
* Bodies are plain dicts; whoever calls turns them into our records at once.

Sources: microversions are sent as `OpenStack-API-Version` (api-ref compute,
"Microversions"); Nova 2.1 and Cinder 3.0, the oldest, know all we need but Cinder's
messages (3.5) and attachments (3.27): clouds without those are done without them. Lists
are paged by `<name>_links` (Nova, Cinder, Neutron) or `next` (Glance); of these links
only the query is used, because behind a proxy their host is often the inner one.
"""

import threading
from collections.abc import Callable, Iterator, Mapping
from enum import Enum
from typing import Any, Final, TypeAlias, TypeVar
from urllib.parse import parse_qsl, quote, urlsplit

import requests
from msgspec.structs import asdict
from openstack.connection import Connection

from blockferry.errors import InternalError, NotFoundError
from blockferry_controller.clouds import fenced
from blockferry_controller.clouds.openstack.rate import Bucket, buckets
from blockferry_controller.clouds.openstack.refusals import (
    TransientError,
    explain,
    explain_exception,
    read_refusal,
)
from blockferry_controller.clouds.openstack.waiting import Patience
from blockferry_controller.config import CallRates

Body: TypeAlias = dict[str, Any]
Query: TypeAlias = Mapping[str, str]
T = TypeVar("T")

_PAGES_MAX: Final = 1000
_NO_RETRIES: Final = {"connect_retries": 0, "status_code_retries": 0}
"""keystoneauth repeats whatever failed to connect, POSTs too, when clouds.yaml or an older
openstacksdk (1 by default in 4.13) asks for it: a lost answer would make things twice."""


USUAL_RATES: Final = CallRates(compute=30.0, block_storage=30.0, network=30.0, image=30.0)
"""Where nobody says otherwise: far above what a migration asks for, which is some twenty
calls of a service in its whole life, and far below what one API process answers."""


class Service(Enum):
    """A service: name of its proxy in openstacksdk, least microversion."""

    COMPUTE = ("compute", "2.1")
    VOLUME = ("block_storage", "3.0")
    NETWORK = ("network", None)
    IMAGE = ("image", None)


class Rest:
    """Calls to one project of one cloud. Thread-safe.

    `what` is the call in words for messages: `create volume db`.
    """

    def __init__(
        self,
        connection: Connection,
        cloud: str,
        patience: Patience,
        rates: CallRates = USUAL_RATES,
    ) -> None:
        self._connection = connection
        self._buckets = buckets(asdict(rates.or_else(USUAL_RATES)), patience.clock)
        self._discovery = threading.Lock()
        self.cloud: Final = cloud
        self.patience: Final = patience

    def get(
        self,
        service: Service,
        path: str,
        what: str,
        query: Query | None = None,
        microversion: str | None = None,
    ) -> Body:
        """The answer's body."""
        return self.patience.through_outages(
            lambda: self._send(service, "GET", path, what, query=query, microversion=microversion)
        )

    def headers(self, service: Service, path: str, what: str, query: Query) -> Mapping[str, str]:
        """Only the answer's headers."""
        return self.patience.through_outages(
            lambda: self._respond(service, "GET", path, what, query=query).headers
        )

    def find(self, service: Service, path: str, what: str) -> Body | None:
        """The answer's body, or None when there is no such thing."""
        try:
            return self.get(service, path, what)
        except NotFoundError as error:
            if error.reason != "CLOUD_HAS_NOT":
                raise
            return None

    def items(
        self,
        service: Service,
        path: str,
        key: str,
        what: str,
        query: Query | None = None,
        *,
        microversion: str | None = None,
    ) -> list[Body]:
        """All items of all pages.

        Raises:
            InternalError: CLOUD_ANSWER_UNKNOWN, the pages do not end.
        """
        pages = self._pages(
            key, what, query, lambda at: self.get(service, path, what, at, microversion)
        )
        return [item for page in pages for item in page]

    def items_once(
        self, service: Service, path: str, key: str, what: str, query: Query
    ) -> list[Body]:
        """The same, by a single try.

        Raises:
            TransientError: For the moment it cannot be told.
        """
        pages = self._pages(
            key, what, query, lambda at: self._send(service, "GET", path, what, query=at)
        )
        return [item for page in pages for item in page]

    def _pages(
        self, key: str, what: str, query: Query | None, get: Callable[[Query], Body]
    ) -> Iterator[list[Body]]:
        page_query = dict(query or {})
        for _ in range(_PAGES_MAX):
            page = get(page_query)
            found = page.get(key) or []
            yield found
            following = _next_query(page, key)
            if following is None or not found or following == page_query:
                return
            page_query = following
        raise InternalError(
            "CLOUD_ANSWER_UNKNOWN", f"{self.cloud}: cannot {what}: more than {_PAGES_MAX} pages."
        )

    def post(
        self,
        service: Service,
        path: str,
        body: Body,
        what: str,
        *,
        repeatable: bool = False,
        microversion: str | None = None,
    ) -> Body:
        """Send `body`.

        Raises:
            TransientError: Only if not `repeatable`; whether it was done is unknown.
        """

        def send() -> Body:
            return self._send(service, "POST", path, what, body=body, microversion=microversion)

        return self.patience.through_outages(send) if repeatable else send()

    def put(self, service: Service, path: str, what: str, body: Body | None = None) -> Body:
        """Put `body`, or nothing, there."""
        return self.patience.through_outages(
            lambda: self._send(service, "PUT", path, what, body=body)
        )

    def delete(
        self, service: Service, path: str, what: str, microversion: str | None = None
    ) -> bool:
        """Ask for deletion; False when it was gone already."""
        try:
            self.patience.through_outages(
                lambda: self._send(service, "DELETE", path, what, microversion=microversion)
            )
            return True
        except NotFoundError as error:
            if error.reason != "CLOUD_HAS_NOT":
                raise
            return False

    def find_or_create(
        self, find: Callable[[], T | None], create: Callable[[], T], *, confirm: bool = True
    ) -> T:
        """What `find` finds, else what `create` makes: exactly one, whatever gets lost.

        Lists may lag: after a creation whose answer was lost it is looked for a while before
        it is sent again, and one that was answered is waited for until `find` finds it, so
        that the next call of this kind does. Without `confirm` that is left to whoever waits
        for what was made in any case; see Patience.showing.
        """
        lost = False

        def either() -> T:
            nonlocal lost
            found = self.patience.appearance(find) if lost else find()
            if found is not None:
                return found
            try:
                made = create()
            except TransientError as error:
                lost = error.reason != "CLOUD_LIMITS_RATE"
                raise
            return (self.patience.appearance(find) if confirm else None) or made

        return self.patience.through_outages(either)

    def _send(
        self,
        service: Service,
        method: str,
        path: str,
        what: str,
        *,
        body: Body | None = None,
        query: Query | None = None,
        microversion: str | None = None,
    ) -> Body:
        response = self._respond(
            service, method, path, what, body=body, query=query, microversion=microversion
        )
        return self._content(response, what)

    def _respond(
        self,
        service: Service,
        method: str,
        path: str,
        what: str,
        *,
        body: Body | None = None,
        query: Query | None = None,
        microversion: str | None = None,
    ) -> requests.Response:
        proxy, least = service.value
        if method != "GET":
            # Here as well as at the gate: without a token nobody comes there.
            fenced.ask()
        try:
            response: requests.Response = self._proxy(proxy).request(
                path,
                method,
                params=dict(query) if query else None,
                json=body,
                microversion=microversion or least,
                rate_semaphore=_Gate(self._buckets[proxy], changes=method != "GET"),
                **_NO_RETRIES,
            )
        except Exception as error:
            ours = explain_exception(error, what, self.cloud)
            if ours is None:
                raise
            raise ours from error
        if response.status_code >= 400:
            refusal = read_refusal(response.status_code, response.headers, response.text)
            if refusal.status in {429, 503}:
                self._buckets[proxy].hold(refusal.retry_after_seconds)
            raise explain(refusal, what, self.cloud)
        return response

    def _proxy(self, name: str) -> Any:
        """The service's adapter; its first use asks for catalog and versions.

        Under a lock: openstacksdk would let each thread discover for itself.
        """
        with self._discovery:
            return getattr(self._connection, name)

    def _content(self, response: requests.Response, what: str) -> Body:
        if not response.content:
            return {}
        try:
            content = response.json()
        except ValueError as error:
            if response.status_code in {202, 204}:
                return {}
            raise TransientError(
                "CLOUD_FAILS",
                f"{self.cloud}: cannot {what}: the answer is no JSON; is there a proxy or a "
                "login page in between?",
                cloud=self.cloud,
            ) from error
        return content if isinstance(content, dict) else {}


class _Gate:
    """What keystoneauth enters before each time that it sends something."""

    def __init__(self, bucket: Bucket, *, changes: bool) -> None:
        self._bucket, self._changes = bucket, changes

    def __enter__(self) -> None:
        self._bucket.__enter__()
        if self._changes:
            # Now, not before: a service that asks for time is left alone for minutes.
            fenced.ask()

    def __exit__(self, *error: object) -> None:
        """Nothing is held."""


def segment(text: str) -> str:
    """`text` as one segment of a path, whatever is in it."""
    return quote(text, safe="")


def _next_query(page: Body, key: str) -> dict[str, str] | None:
    links = page.get(f"{key}_links") or []
    href = next((link.get("href") for link in links if link.get("rel") == "next"), None)
    href = href or page.get("next")
    return dict(parse_qsl(urlsplit(str(href)).query)) if href else None
