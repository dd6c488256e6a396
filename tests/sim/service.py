"""What the five services have in common: tokens, microversions, faults, error bodies."""

from __future__ import annotations

import re
import traceback
from dataclasses import dataclass
from email.message import Message
from typing import TYPE_CHECKING

from tests.sim.http import ApiError, Json, Request, Response, Router

if TYPE_CHECKING:
    from tests.sim.cloud import EmbeddedCloud

FAULT_NAMES = {
    400: "badRequest",
    401: "unauthorized",
    403: "forbidden",
    404: "itemNotFound",
    405: "badMethod",
    409: "conflictingRequest",
    413: "overLimit",
    415: "badMediaType",
    429: "overLimit",
    501: "notImplemented",
    503: "serviceUnavailable",
}
"""Names Nova and Cinder give error bodies (nova/api/openstack/wsgi.py); others are computeFault."""


@dataclass(frozen=True)
class Microversions:
    """The microversions a service speaks and the headers that choose one."""

    service_type: str
    minimum: tuple[int, int]
    maximum: tuple[int, int]
    legacy_header: str = ""

    def negotiate(self, headers: Message) -> tuple[int, int]:
        """The version asked for; the minimum when none is.

        Raises:
            ApiError: 400 for nonsense, 406 for a version outside of the range.
        """
        asked = self._asked(headers)
        if asked is None:
            return self.minimum
        if asked == "latest":
            return self.maximum
        match = re.fullmatch(r"(\d+)\.(\d+)", asked)
        if not match:
            raise ApiError(
                400,
                f"API Version String {asked} is of invalid format. Must be of format "
                "MajorNum.MinorNum.",
            )
        version = (int(match[1]), int(match[2]))
        if not self.minimum <= version <= self.maximum:
            raise ApiError(
                406,
                f"Version {asked} is not supported by the API. Minimum is "
                f"{self.text(self.minimum)} and maximum is {self.text(self.maximum)}.",
            )
        return version

    def _asked(self, headers: Message) -> str | None:
        for choice in headers.get("OpenStack-API-Version", "").split(","):
            words = choice.split()
            if len(words) == 2 and words[0].lower() == self.service_type:
                return words[1]
        legacy = headers.get(self.legacy_header) if self.legacy_header else None
        return legacy or None

    def answer_headers(self, version: tuple[int, int]) -> dict[str, str]:
        """Headers that say which version answered."""
        headers = {"OpenStack-API-Version": f"{self.service_type} {self.text(version)}"}
        if self.legacy_header:
            headers[self.legacy_header] = self.text(version)
        headers["Vary"] = ", ".join(headers)
        return headers

    @staticmethod
    def text(version: tuple[int, int]) -> str:
        """`2.96` for (2, 96)."""
        return f"{version[0]}.{version[1]}"


class Service:
    """One API. Subclasses add routes and may change how errors read."""

    name: str
    port: int
    microversions: Microversions | None = None

    def __init__(self, cloud: EmbeddedCloud) -> None:
        self.cloud = cloud
        self.open_routes = Router()
        """Answered without a token: version discovery, logging in."""
        self.routes = Router()
        self.url = ""
        """Set when the service listens."""

    def respond(self, request: Request) -> Response:
        """Answer, faults and errors included."""
        fault = self.cloud.faults.take(self.name, request.method, request.path)
        try:
            if fault:
                fault.before()
            with self.cloud.lock:
                response = self._answer(request)
        except ApiError as error:
            response = self.render_error(error)
        self.cloud.record(self.name, request.method, request.path, response.status)
        if fault:
            fault.after()
        return response

    def _answer(self, request: Request) -> Response:
        try:
            return self._route(request)
        except ApiError as error:
            response = self.render_error(error)
            if self.microversions and request.version != (0, 0):
                response.headers.update(self.microversions.answer_headers(request.version))
            return response
        except Exception:  # noqa: BLE001 - a bug of the sim is a 500 and seen in `problems`
            self.cloud.problems.append(traceback.format_exc())
            return self.render_error(ApiError(500, "The server has either erred or is incapable."))

    def _route(self, request: Request) -> Response:
        try:
            return self.open_routes.dispatch(request)
        except ApiError as error:
            if error.status not in {404, 405} or error.kind:
                raise
        request.token = self.cloud.keystone.check(request.headers.get("X-Auth-Token", ""))
        self.authorize(request)
        if self.microversions is None:
            return self.routes.dispatch(request)
        request.version = self.microversions.negotiate(request.headers)
        response = self.routes.dispatch(request)
        response.headers.update(self.microversions.answer_headers(request.version))
        return response

    def authorize(self, request: Request) -> None:
        """Refuse those who may only read what they must not change."""
        if request.method not in {"GET", "HEAD"} and "member" not in request.token.user.roles:
            rule = f"{self.name}:{request.method.lower()}:{request.path.rsplit('/', 1)[-1]}"
            raise ApiError(403, f"Policy doesn't allow {rule} to be performed.")

    def render_error(self, error: ApiError) -> Response:
        """Nova's and Cinder's body; what keystonemiddleware says for a bad token."""
        if error.body is not None:
            return Response(error.status, error.body, error.headers)
        if error.status == 401:
            return unauthorized(error, self.cloud.keystone.url)
        name = error.kind or FAULT_NAMES.get(error.status, "computeFault")
        body: Json = {"code": error.status, "message": error.message}
        if error.status in {413, 429}:
            body["retryAfter"] = error.headers.setdefault("Retry-After", "0")
        return Response(error.status, {name: body}, error.headers)


def admin_only(request: Request, rule: str) -> None:
    """Refuse what only the operator of a cloud may do.

    Raises:
        ApiError: 403, with the name of the policy's rule.
    """
    if not request.token.admin:
        raise ApiError(403, f"Policy doesn't allow {rule} to be performed.")


def unauthorized(error: ApiError, keystone_url: str) -> Response:
    """The body keystonemiddleware and Keystone give a 401."""
    body = {"error": {"code": 401, "title": "Unauthorized", "message": error.message}}
    headers = {"WWW-Authenticate": f'Keystone uri="{keystone_url}"', **error.headers}
    return Response(401, body, headers)


def page_of(
    items: list[Json], request: Request, *, maximum: int = 1000
) -> tuple[list[Json], str | None]:
    """One page by `limit` and `marker` as Nova, Cinder and Neutron do it.

    Returns:
        The page and the marker of the next one, None on the last.
    """
    params = request.params
    try:
        limit = min(int(params.get("limit") or maximum), maximum)
        offset = int(params.get("offset") or 0)
    except ValueError as error:
        raise ApiError(400, "limit param must be an integer") from error
    if limit < 0 or offset < 0:
        raise ApiError(400, "limit param must be positive")
    marker = params.get("marker")
    if marker:
        ids = [item["id"] for item in items]
        if marker not in ids:
            raise ApiError(400, f"marker [{marker}] not found")
        items = items[ids.index(marker) + 1 :]
    items = items[offset:]
    page = items[:limit]
    more = len(items) > limit and bool(page)
    return page, page[-1]["id"] if more else None
