"""What a cloud's refusal means to us: one table, no I/O.

    answer                                              class                reason
    400                                                 PreconditionError    CLOUD_REFUSED
    401                                                 AuthenticationError  AUTHENTICATION_REFUSED
    403 too many disks on an instance                   CapacityError        TOO_MANY_DISKS
    403, 409, 413 that speak of a quota or limit        CapacityError        QUOTA_<RESOURCE>
    403 otherwise (policy)                              ForbiddenError       CLOUD_FORBIDS
    404                                                 NotFoundError        CLOUD_HAS_NOT
    405, 406, 501                                       PreconditionError    CLOUD_CANNOT
    409 out of fixed addresses                          CapacityError        NO_ADDRESS_LEFT
    409 otherwise, 423                                  BusyError            CLOUD_BUSY
    413 otherwise                                       PreconditionError    CLOUD_REFUSED
    429                                                 TransientError       CLOUD_LIMITS_RATE
    408, 5xx                                            TransientError       CLOUD_FAILS
    no connection, no answer in time                    TransientError       CLOUD_UNREACHABLE
    certificate not trusted                             UnreachableError     CLOUD_NOT_TRUSTED
    no such service in the catalog                      NotFoundError        SERVICE_NOT_FOUND
    credentials missing or malformed in clouds.yaml     AuthenticationError  CREDENTIALS_INCOMPLETE
    anything else                                       InternalError        CLOUD_ANSWER_UNKNOWN

Sources of what is not obvious:
* Cinder answers a used-up quota with 413 and `Retry-After: 0`, Nova with 403, Neutron
  with 409 `OverQuota` (api-ref block-storage v3, compute v2.1, network v2.0).
* With unified limits Nova says "Project … is over a limit for [Resource class:VCPU …]"
  and names the resources as Placement does (Nova admin guide, unified limits).
* Nova's limit of disks per instance, an operator's setting that no call shows, is
  told when it is met: 403, in words like a quota's (nova.exception.TooManyDiskDevices).
* Cinder refuses metadata values over 255 characters with 413 too
  (cinder.exception.InvalidVolumeMetadataSize): that is no quota.
* Proxies and gateways send Retry-After as a date, too; OpenStack's own services seconds.
* Nova's schema errors quote the refused value, user-data included: long runs of
  base64 are cut out before a message goes anywhere.
"""

import json
import re
from collections.abc import Mapping
from datetime import datetime, timezone
from email.utils import parsedate_to_datetime
from typing import Any, Final

import keystoneauth1.exceptions as keystone_errors
import openstack.exceptions as sdk_errors
from msgspec import Struct

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

_TEXT_MAX = 400
_RETRY_AFTER_MAX_SECONDS = 300.0
_BASE64_RUN = re.compile(r"[A-Za-z0-9+/=_-]{80,}")
_OVER_QUOTA = re.compile(
    r"quota|over (?:a |the |its )?limit|exceeds (?:the )?(?:allowed|maximum)|larger than maximum"
    r"|maximum number of|exceeded",
    re.IGNORECASE,
)
_NO_ADDRESS = re.compile(
    r"IpAddressGenerationFailure|no more ip addresses|no fixed ip|fixed ips? exceeded",
    re.IGNORECASE,
)
_DISK_DEVICES: Final = re.compile(r"number of disk devices", re.IGNORECASE)
_QUOTA_RESOURCES: Final = (
    ("FLOATING_IPS", re.compile(r"floating.?ip", re.IGNORECASE)),
    ("SECURITY_GROUP_RULES", re.compile(r"security.group.rule", re.IGNORECASE)),
    ("SECURITY_GROUPS", re.compile(r"security.group", re.IGNORECASE)),
    ("GIGABYTES", re.compile(r"gigabytes|volume size", re.IGNORECASE)),
    ("VOLUMES", re.compile(r"\bvolumes", re.IGNORECASE)),
    ("RAM_BYTES", re.compile(r"\bram\b|MEMORY_MB", re.IGNORECASE)),
    ("CORES", re.compile(r"\bcores\b|VCPU", re.IGNORECASE)),
    ("INSTANCES", re.compile(r"\binstances?\b|\bservers\b", re.IGNORECASE)),
    ("PORTS", re.compile(r"\bports?\b", re.IGNORECASE)),
)
"""The first that matches names the resource: the narrower comes before the wider."""


class TransientError(UnreachableError):
    """The same call may succeed in a moment. Never leaves this package.

    Attributes:
        retry_after_seconds: What the cloud asked for, in [0, 300]; 0 when it did not.
    """

    def __init__(
        self, reason: str, message: str, *, retry_after_seconds: float = 0, **metadata: object
    ) -> None:
        super().__init__(reason, message, **metadata)
        self.retry_after_seconds: Final = retry_after_seconds

    def lasting(self) -> UnreachableError:
        """As it leaves the package, when trying again was in vain."""
        return UnreachableError(
            self.reason,
            f"{self.message} Try again later; `blockferry resume` goes on from where it stopped.",
            **self.metadata,
        )


class Refusal(Struct, frozen=True):
    """An answer with a status of 400 or above.

    Attributes:
        text: What the cloud said, at most 400 characters, no secret in it.
        retry_after_seconds: In [0, 300].
    """

    status: int
    text: str
    retry_after_seconds: float = 0


def read_refusal(status: int, headers: Mapping[str, str], body: str) -> Refusal:
    """Take status, message and Retry-After out of an answer.

    Bodies are `{"itemNotFound": {"message": …}}` of Nova and Cinder, `{"NeutronError":
    {"type": …, "message": …}}`, `{"error": {"message": …}}` of Keystone, HTML of Glance
    and of proxies.
    """
    return Refusal(status, cleaned(_message(body)), _retry_after(headers))


def explain(refusal: Refusal, what: str, cloud: str) -> BlockferryError:
    """The error for `refusal`, by the table above.

    Args:
        refusal: The answer.
        what: The call in words, such as `create volume db`.
        cloud: Name in clouds.yaml.
    """
    said = f"{cloud}: cannot {what}: {refusal.text} (HTTP {refusal.status})."
    facts = {"cloud": cloud, "status": refusal.status}
    status = refusal.status
    if status in {403, 409, 413} and _NO_ADDRESS.search(refusal.text):
        advice = "Free addresses of the network, or choose another with --network."
        return CapacityError("NO_ADDRESS_LEFT", f"{said} {advice}", **facts)
    if status == 403 and _DISK_DEVICES.search(refusal.text):
        advice = (
            "A migration needs one beside those that an instance boots with: ask the cloud's "
            "operator for a higher max_disk_devices_to_attach."
        )
        return CapacityError("TOO_MANY_DISKS", f"{said} {advice}", **facts)
    if status in {403, 409, 413} and _is_quota(refusal):
        return quota_error(refusal.text, said, **facts)
    if status == 429:
        return TransientError(
            "CLOUD_LIMITS_RATE", said, retry_after_seconds=refusal.retry_after_seconds, **facts
        )
    if status == 408 or (status >= 500 and status != 501):
        return TransientError(
            "CLOUD_FAILS", said, retry_after_seconds=refusal.retry_after_seconds, **facts
        )
    cls, reason, advice = _BY_STATUS.get(
        status, (InternalError, "CLOUD_ANSWER_UNKNOWN", "Please report this.")
    )
    return cls(reason, f"{said} {advice}".rstrip(), **facts)


_BY_STATUS: Final[Mapping[int, tuple[type[BlockferryError], str, str]]] = {
    400: (PreconditionError, "CLOUD_REFUSED", ""),
    401: (
        AuthenticationError,
        "AUTHENTICATION_REFUSED",
        "Check user, password or application credential, and project in clouds.yaml.",
    ),
    403: (
        ForbiddenError,
        "CLOUD_FORBIDS",
        "The cloud's policy does not allow it to this user: ask for the role `member`.",
    ),
    404: (NotFoundError, "CLOUD_HAS_NOT", ""),
    405: (PreconditionError, "CLOUD_CANNOT", "This cloud does not offer the call."),
    406: (PreconditionError, "CLOUD_CANNOT", "This cloud is too old for the call."),
    409: (BusyError, "CLOUD_BUSY", ""),
    413: (PreconditionError, "CLOUD_REFUSED", ""),
    423: (BusyError, "CLOUD_BUSY", ""),
    501: (PreconditionError, "CLOUD_CANNOT", "This cloud does not offer the call."),
}


def quota_error(text: str, said: str, **facts: object) -> CapacityError:
    """The error for a used-up quota; `text` names the resource, `said` is for people."""
    resource = next((name for name, words in _QUOTA_RESOURCES if words.search(text)), "EXCEEDED")
    advice = "Free some of it, or ask the cloud's operator for a higher quota."
    return CapacityError(f"QUOTA_{resource}", f"{said} {advice}", **facts)


def speaks_of_quota(text: str) -> bool:
    """Whether a message, such as a server's fault, is about a used-up quota."""
    return _OVER_QUOTA.search(text) is not None


def explain_exception(error: Exception, what: str, cloud: str) -> BlockferryError | None:
    """The error for what openstacksdk and keystoneauth raise; None for what is not theirs."""
    text = cleaned(str(error))
    said = f"{cloud}: cannot {what}: {text.rstrip('.')}."
    if isinstance(error, keystone_errors.HttpError):
        return explain(_http_refusal(error), what, cloud)
    if isinstance(error, sdk_errors.HttpException) and error.status_code:
        return explain(Refusal(error.status_code, text), what, cloud)
    for classes, cls, reason, advice in _BY_CLASS:
        if isinstance(error, classes):
            return cls(reason, f"{said} {advice}".rstrip(), cloud=cloud)
    return None


_BY_CLASS: Final[
    tuple[tuple[tuple[type[Exception], ...], type[BlockferryError], str, str], ...]
] = (
    (
        (keystone_errors.SSLError,),
        UnreachableError,
        "CLOUD_NOT_TRUSTED",
        "Name the cloud's authority as `cacert` in clouds.yaml.",
    ),
    (
        (keystone_errors.EndpointNotFound, sdk_errors.ServiceDisabledException),
        NotFoundError,
        "SERVICE_NOT_FOUND",
        "Check `region_name` and `interface` in clouds.yaml.",
    ),
    (
        (
            keystone_errors.ConnectionError,
            keystone_errors.DiscoveryFailure,
            sdk_errors.ServiceDiscoveryException,
            sdk_errors.NotSupported,
        ),
        TransientError,
        "CLOUD_UNREACHABLE",
        "Check `auth_url` in clouds.yaml and the way there.",
    ),
    (
        (
            keystone_errors.AuthPluginException,
            keystone_errors.AuthorizationFailure,
            keystone_errors.MissingAuthPlugin,
            keystone_errors.OptionError,
            sdk_errors.ConfigException,
        ),
        AuthenticationError,
        "CREDENTIALS_INCOMPLETE",
        "Complete `auth` in clouds.yaml.",
    ),
)
"""The first row that matches counts: the narrower class comes before the wider."""


def cleaned(text: str) -> str:
    """One line of at most 400 characters, without long runs of base64."""
    line = " ".join(_BASE64_RUN.sub("[…]", text).split())
    return line if len(line) <= _TEXT_MAX else f"{line[:_TEXT_MAX]}…"


def _is_quota(refusal: Refusal) -> bool:
    if "metadata" in refusal.text.lower():
        return False
    return speaks_of_quota(refusal.text)


def _http_refusal(error: keystone_errors.HttpError) -> Refusal:
    return Refusal(
        error.http_status,
        cleaned(str(error.details or error.message)),
        float(min(getattr(error, "retry_after", 0) or 0, _RETRY_AFTER_MAX_SECONDS)),
    )


def _message(body: str) -> str:
    try:
        content: Any = json.loads(body)
    except ValueError:
        return re.sub(r"<[^>]*>", " ", body) or "no reason given"
    parts = list(content.values()) if isinstance(content, dict) else [content]
    texts = [_part_text(part) for part in parts]
    return " ".join(text for text in texts if text) or "no reason given"


def _part_text(part: Any) -> str:
    if not isinstance(part, dict):
        return str(part)
    kind = str(part.get("type", ""))
    message = str(part.get("message", ""))
    return f"{kind}: {message}" if kind and message else message or kind


def _retry_after(headers: Mapping[str, str]) -> float:
    """Seconds, whether the answer has them or a date (RFC 9110, 10.2.3); 0 when neither.

    A date is compared with the answer's own `Date`: the cloud's clock may differ from ours.
    """
    value = headers.get("Retry-After", "")
    try:
        seconds = float(value)
    except ValueError:
        until = _date(value)
        now = _date(headers.get("Date", "")) or datetime.now(timezone.utc)
        seconds = (until - now).total_seconds() if until else 0.0
    # Not min(max(…)): a NaN compares with nothing.
    return min(seconds, _RETRY_AFTER_MAX_SECONDS) if seconds > 0 else 0.0


def _date(text: str) -> datetime | None:
    try:
        read = parsedate_to_datetime(text)
    except (TypeError, ValueError):
        return None
    return read if read.tzinfo else read.replace(tzinfo=timezone.utc)
