"""One cloud: can a temp instance be booted there, and is there room?

Only questions are asked; nothing is made.
"""

from collections.abc import Callable
from contextlib import closing
from typing import Final

from blockferry import __version__
from blockferry_controller.clouds.port import Cloud, Image, Quota
from blockferry_controller.doctor.finding import Finding, Findings, examined, fail, warn
from blockferry_controller.migration.choose import (
    choose_flavor,
    choose_image,
    choose_network,
    is_prepared,
)
from blockferry_controller.notation import format_bytes
from blockferry_controller.spec import Placement

_ONE_OF_EACH: Final = (
    "instances",
    "cores",
    "volumes",
    "gigabytes",
    "ports",
    "security_groups",
    "security_group_rules",
)
"""What a migration needs at least one of."""


def examine(name: str, connect: Callable[[str], Cloud], placement: Placement) -> Findings:
    """Look at the cloud `name`; what depends on a failed check is left out.

    Args:
        name: As in clouds.yaml.
        connect: Opens it.
        placement: What configuration and options say about instances there.
    """
    opened: list[Cloud] = []

    def authenticate() -> str:
        opened.append(connect(name))
        return f"as {opened[0].identity}"

    yield examined(f"{name}: authentication", authenticate)
    if opened:
        with closing(opened[0]) as cloud:
            for finding in _services(cloud, placement):
                yield Finding(
                    f"{name}: {finding.name}", finding.outcome, finding.detail, finding.error
                )


def _services(cloud: Cloud, placement: Placement) -> Findings:
    chosen: list[Image] = []

    def image() -> str:
        chosen.append(choose_image(cloud.list_images(), placement.image, __version__))
        made = "holds the agent" if is_prepared(chosen[0]) else "the agent will be installed"
        return f"{chosen[0].name}, {made}"

    def flavor() -> str:
        found = choose_flavor(cloud.list_flavors(), chosen[0], placement.flavor)
        return f"{found.name}, {found.vcpus} vCPU, {format_bytes(found.ram_bytes)}"

    def network() -> str:
        wanted = placement.network
        found = choose_network(cloud.list_networks(), wanted, placement.ip_version)
        families = ", ".join(f"IPv{version}" for version in sorted(found.ip_versions))
        return f"{found.name}, {families or 'no subnet'}"

    yield examined("image", image)
    if chosen:
        yield examined("flavor", flavor)
    yield examined("network", network)
    yield from _quota(cloud)
    yield _leftovers(cloud)


def _quota(cloud: Cloud) -> Findings:
    seen: list[Quota] = []

    def look() -> str:
        seen.append(cloud.quota())
        left = seen[0].left
        told = [f"{left[key]} {key}" for key in _ONE_OF_EACH if left.get(key) is not None]
        return f"left: {', '.join(told)}" if told else "without limits"

    finding = examined("quota", look)
    used_up = [key for key in _ONE_OF_EACH if seen and seen[0].left.get(key) == 0]
    if used_up:
        yield fail("quota", f"no {', '.join(used_up)} left; free some or have the quota raised")
    else:
        yield finding


def _leftovers(cloud: Cloud) -> Finding:
    found: list[str] = []

    def look() -> str:
        found.extend(resource.name for resource in cloud.find_resources())
        return "none"

    finding = examined("leftovers", look)
    if not found:
        return finding
    return warn(
        "leftovers",
        f"{len(found)} resources of running or broken migrations; "
        f"see `blockferry cleanup --dry-run --cloud {cloud.name}`",
    )
