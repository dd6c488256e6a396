"""The door of the package; what is slow to import is imported behind it."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from blockferry_controller.clouds.openstack.cloud import OpenStackCloud
    from blockferry_controller.config import CallRates


def connect(name: str, rates: "CallRates | None" = None) -> "OpenStackCloud":
    """The cloud of that name in clouds.yaml, authenticated.

    Args:
        name: As in clouds.yaml.
        rates: Calls a second for each service; where they say nothing, rest.USUAL_RATES.

    clouds.yaml is looked for as openstacksdk does: OS_CLIENT_CONFIG_FILE, else the
    working directory, ~/.config/openstack, /etc/openstack.

    Raises:
        NotFoundError: CLOUD_NOT_FOUND, clouds.yaml does not have it.
        UsageError: CLOUDS_FILE_UNREADABLE.
        AuthenticationError: The cloud refuses the credentials, or they are incomplete.
        UnreachableError: It does not answer.
    """
    # Half a second of imports, which `blockferry --help` should not pay for.
    from blockferry_controller.clouds.openstack.cloud import OpenStackCloud  # noqa: PLC0415
    from blockferry_controller.clouds.openstack.session import open_session  # noqa: PLC0415

    return OpenStackCloud(open_session(name), rates=rates)
