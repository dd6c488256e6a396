"""What a cloud's refusal means: a row per case, in the words of the real services."""

import json
from datetime import datetime, timedelta, timezone
from email.utils import format_datetime

import keystoneauth1.exceptions as keystone_errors
import openstack.exceptions as sdk_errors
import pytest

from blockferry.errors import (
    AuthenticationError,
    BlockferryError,
    BusyError,
    CapacityError,
    ForbiddenError,
    InternalError,
    NotFoundError,
    PreconditionError,
    UnreachableError,
)
from blockferry_controller.clouds.openstack.refusals import (
    Refusal,
    TransientError,
    cleaned,
    explain,
    explain_exception,
    read_refusal,
)


def compute(kind: str, message: str) -> str:
    return json.dumps({kind: {"code": 400, "message": message}})


def neutron(kind: str, message: str) -> str:
    return json.dumps({"NeutronError": {"type": kind, "message": message, "detail": ""}})


CASES = [
    ("bad-request", 400, compute("badRequest", "Invalid volume: x"), PreconditionError,
     "CLOUD_REFUSED"),
    ("token", 401, json.dumps({"error": {"code": 401, "message": "Requires authentication"}}),
     AuthenticationError, "AUTHENTICATION_REFUSED"),
    ("policy", 403, compute("forbidden", "Policy doesn't allow volume:create to be performed."),
     ForbiddenError, "CLOUD_FORBIDS"),
    ("nova-instances", 403, compute("forbidden", "Quota exceeded for instances: Requested 1, but "
     "already used 10 of 10 instances"), CapacityError, "QUOTA_INSTANCES"),
    ("nova-cores", 403, compute("forbidden", "Quota exceeded for cores: Requested 4, but already "
     "used 20 of 20 cores"), CapacityError, "QUOTA_CORES"),
    ("nova-ram", 403, compute("forbidden", "Quota exceeded for ram: Requested 512, but already "
     "used 51200 of 51200 ram"), CapacityError, "QUOTA_RAM_BYTES"),
    ("nova-unified-vcpu", 403, compute("forbidden", "Project 5d is over a limit for [Resource "
     "class:VCPU is over limit of 8 due to current usage 8 and delta 1]"), CapacityError,
     "QUOTA_CORES"),
    ("nova-unified-servers", 403, compute("forbidden", "Project 5d is over a limit for [Resource "
     "servers is over limit of 2 due to current usage 2 and delta 1]"), CapacityError,
     "QUOTA_INSTANCES"),
    ("nova-ports", 403, compute("forbidden", "Maximum number of ports exceeded"), CapacityError,
     "QUOTA_PORTS"),
    ("nova-disks", 403, compute("forbidden", "The maximum allowed number of disk devices (1) to "
     "attach to a single instance has been exceeded."), CapacityError, "TOO_MANY_DISKS"),
    ("nova-addresses", 403, compute("forbidden", "Maximum number of fixed IPs exceeded"),
     CapacityError, "NO_ADDRESS_LEFT"),
    ("cinder-gigabytes", 413, compute("overLimit", "VolumeSizeExceedsAvailableQuota: Requested "
     "volume or snapshot exceeds allowed gigabytes quota. Requested 10G, quota is 1000G and 991G "
     "has been consumed."), CapacityError, "QUOTA_GIGABYTES"),
    ("cinder-volumes", 413, compute("overLimit", "VolumeLimitExceeded: Maximum number of volumes "
     "allowed (10) exceeded for quota 'volumes'."), CapacityError, "QUOTA_VOLUMES"),
    ("cinder-type-quota", 413, compute("overLimit", "VolumeLimitExceeded: Maximum number of "
     "volumes allowed (1) exceeded for quota 'volumes_fast'."), CapacityError, "QUOTA_VOLUMES"),
    ("cinder-one-volume", 413, compute("overLimit", "VolumeSizeExceedsLimit: Requested volume size "
     "2000G is larger than maximum allowed limit 1000G."), CapacityError, "QUOTA_GIGABYTES"),
    ("cinder-metadata", 413, compute("overLimit", "Metadata property value greater than 255 "
     "characters exceeded"), PreconditionError, "CLOUD_REFUSED"),
    ("neutron-port", 409, neutron("OverQuota", "Quota exceeded for resources: ['port']."),
     CapacityError, "QUOTA_PORTS"),
    ("neutron-group", 409, neutron("OverQuota", "Quota exceeded for resources: "
     "['security_group']."), CapacityError, "QUOTA_SECURITY_GROUPS"),
    ("neutron-rule", 409, neutron("OverQuota", "Quota exceeded for resources: "
     "['security_group_rule']."), CapacityError, "QUOTA_SECURITY_GROUP_RULES"),
    ("neutron-addresses", 409, neutron("IpAddressGenerationFailure", "No more IP addresses "
     "available on network 8a."), CapacityError, "NO_ADDRESS_LEFT"),
    ("neutron-in-use", 409, neutron("SecurityGroupInUse", "Security Group 7 in use."), BusyError,
     "CLOUD_BUSY"),
    ("not-found", 404, compute("itemNotFound", "Volume 5 could not be found."), NotFoundError,
     "CLOUD_HAS_NOT"),
    ("no-such-call", 405, "", PreconditionError, "CLOUD_CANNOT"),
    ("busy-server", 409, compute("conflictingRequest", "Cannot 'attach_volume' instance 1 while it "
     "is in vm_state building"), BusyError, "CLOUD_BUSY"),
    ("locked", 423, "", BusyError, "CLOUD_BUSY"),
    ("rate", 429, "", TransientError, "CLOUD_LIMITS_RATE"),
    ("request-timeout", 408, "", TransientError, "CLOUD_FAILS"),
    ("internal", 500, compute("computeFault", "Unexpected API Error."), TransientError,
     "CLOUD_FAILS"),
    ("not-implemented", 501, "", PreconditionError, "CLOUD_CANNOT"),
    ("gateway", 502, "<html><h1>502 Bad Gateway</h1></html>", TransientError, "CLOUD_FAILS"),
    ("unavailable", 503, "", TransientError, "CLOUD_FAILS"),
    ("gateway-time", 504, "", TransientError, "CLOUD_FAILS"),
    ("teapot", 418, "", InternalError, "CLOUD_ANSWER_UNKNOWN"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("status", "body", "cls", "reason"),
    [pytest.param(*case[1:], id=case[0]) for case in CASES],
)
def test_refusals(status: int, body: str, cls: type[BlockferryError], reason: str) -> None:
    error = explain(read_refusal(status, {}, body), "do it", "east")
    assert type(error) is cls
    assert error.reason == reason
    assert error.message.startswith("east: cannot do it: ")
    assert f"HTTP {status}" in error.message
    assert error.metadata["cloud"] == "east"


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (compute("itemNotFound", "Not here."), "Not here."),
        (neutron("OverQuota", "Too many."), "OverQuota: Too many."),
        ("<html><title>503</title><p>Down</p></html>", "503 Down"),
        ('{"message": "plain"}', "plain"),
        ("[1]", "[1]"),
        ("", "no reason given"),
        ("{}", "no reason given"),
    ],
)
def test_what_the_cloud_said_is_found(body: str, text: str) -> None:
    assert read_refusal(400, {}, body).text == text


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("17", 17.0),
        ("", 0.0),
        ("-3", 0.0),
        ("99999", 300.0),
        ("Mon, 1 Jan", 0.0),
        ("1.5", 1.5),
        ("nan", 0.0),
        ("inf", 300.0),
    ],
)
def test_retry_after(value: str, seconds: float) -> None:
    assert read_refusal(429, {"Retry-After": value}, "").retry_after_seconds == seconds


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        pytest.param({"Date": "Fri, 27 Nov 2026 10:00:00 GMT"}, 90.0, id="the-clouds-own-clock"),
        pytest.param({"Date": "Fri, 27 Nov 2026 10:01:30 GMT"}, 0.0, id="now"),
        pytest.param({"Date": "Fri, 27 Nov 2026 10:02:00 GMT"}, 0.0, id="over"),
        pytest.param({"Date": "Fri, 27 Nov 2026 08:00:00 GMT"}, 300.0, id="bounded"),
        pytest.param({"Date": "Fri, 27 Nov 2026 10:01:20 -0000"}, 10.0, id="no-zone-is-utc"),
    ],
)
def test_retry_after_as_a_date(headers: dict[str, str], seconds: float) -> None:
    told = {"Retry-After": "Fri, 27 Nov 2026 10:01:30 GMT", **headers}
    assert read_refusal(503, told, "").retry_after_seconds == seconds


def test_retry_after_as_a_date_without_the_clouds_clock() -> None:
    until = datetime.now(timezone.utc) + timedelta(seconds=60)
    told = {"Retry-After": format_datetime(until, usegmt=True)}
    assert 50 < read_refusal(429, told, "").retry_after_seconds <= 60


def test_user_data_that_the_cloud_quotes_stays_secret() -> None:
    secret = "QUJDREVGR0g" * 30
    body = compute("badRequest", f"Invalid input for user_data. Value: {secret}==. Too long")
    error = explain(read_refusal(400, {}, body), "boot", "east")
    assert "QUJD" not in error.message
    assert "Invalid input for user_data" in error.message


def test_messages_are_one_short_line() -> None:
    text = cleaned("a b\n c " * 500)
    assert "\n" not in text
    assert len(text) <= 401


@pytest.mark.parametrize(
    ("error", "cls", "reason"),
    [
        (keystone_errors.Unauthorized("no"), AuthenticationError, "AUTHENTICATION_REFUSED"),
        (keystone_errors.ServiceUnavailable("no"), TransientError, "CLOUD_FAILS"),
        (keystone_errors.NotFound("no"), NotFoundError, "CLOUD_HAS_NOT"),
        (keystone_errors.ConnectFailure("no"), TransientError, "CLOUD_UNREACHABLE"),
        (keystone_errors.ConnectTimeout("no"), TransientError, "CLOUD_UNREACHABLE"),
        (keystone_errors.DiscoveryFailure("no"), TransientError, "CLOUD_UNREACHABLE"),
        (keystone_errors.SSLError("no"), UnreachableError, "CLOUD_NOT_TRUSTED"),
        (keystone_errors.EndpointNotFound("no"), NotFoundError, "SERVICE_NOT_FOUND"),
        (keystone_errors.MissingAuthPlugin("no"), AuthenticationError, "CREDENTIALS_INCOMPLETE"),
        (sdk_errors.ServiceDisabledException("no"), NotFoundError, "SERVICE_NOT_FOUND"),
        (sdk_errors.ConfigException("no"), AuthenticationError, "CREDENTIALS_INCOMPLETE"),
        (sdk_errors.ServiceDiscoveryException("no"), TransientError, "CLOUD_UNREACHABLE"),
    ],
    ids=lambda value: getattr(value, "__name__", type(value).__name__),
)
def test_exceptions_of_the_library(
    error: Exception, cls: type[BlockferryError], reason: str
) -> None:
    ours = explain_exception(error, "do it", "east")
    assert type(ours) is cls
    assert ours.reason == reason


def test_a_defect_is_nobodys_refusal() -> None:
    assert explain_exception(KeyError("x"), "do it", "east") is None


def test_what_lasts_is_plainly_unreachable() -> None:
    error = explain(Refusal(503, "down"), "do it", "east")
    assert isinstance(error, TransientError)
    assert type(error.lasting()) is UnreachableError
    assert error.lasting().metadata == error.metadata
