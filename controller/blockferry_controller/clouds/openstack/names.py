"""Which clouds clouds.yaml names, without talking to any.

The file is found as `connect` finds it; both ask openstacksdk.
"""


def cloud_names() -> tuple[str, list[str]]:
    """The file's path, empty when there is none, and the clouds in it.

    Raises:
        UsageError: CLOUDS_FILE_UNREADABLE.
    """
    # Half a second of imports, which `blockferry --help` should not pay for.
    from blockferry_controller.clouds.openstack.clouds_file import read_clouds  # noqa: PLC0415

    config, names = read_clouds()
    filename = str(config.config_filename or "")
    return filename, names if filename else []
