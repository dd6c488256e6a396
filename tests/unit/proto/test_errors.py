import pickle

import pytest

from blockferry import errors
from blockferry.errors import (
    CLASSES,
    BlockferryError,
    DeviceError,
    InternalError,
    Status,
    from_wire,
)


def test_every_class_is_in_the_tuple() -> None:
    assert set(BlockferryError.__subclasses__()) == set(CLASSES)


def test_the_table_in_the_docstring_is_the_code() -> None:
    rows = [
        line.split()[1:]
        for line in (errors.__doc__ or "").splitlines()
        if line.strip().startswith(("├──", "└──"))
    ]
    code = [
        [
            cls.__name__,
            cls.meaning.status.name,
            "yes" if cls.meaning.retryable else "no",
            str(cls.meaning.exit_code),
        ]
        for cls in CLASSES
    ]
    assert rows == code


def test_exit_codes_are_the_contract() -> None:
    contract = {1, 2, 3, 10, 11, 12, 13, 14, 16, 17, 20, 130}
    assert {cls.meaning.exit_code for cls in CLASSES} == contract


@pytest.mark.parametrize("cls", CLASSES, ids=lambda cls: cls.__name__)
def test_a_class_survives_pickling_and_the_wire(cls: type[BlockferryError]) -> None:
    reason = "DEVICE_IO_READ" if cls is DeviceError else "SOME_REASON"
    error = cls(reason, "what, to what, what now", volume="v-1", offset_bytes=4096)
    pickled = pickle.loads(pickle.dumps(error))
    wired = from_wire(error.meaning.status, error.reason, error.message, error.metadata)
    for copy in (pickled, wired):
        assert type(copy) is cls
        assert (copy.reason, copy.message, copy.metadata) == (
            reason,
            "what, to what, what now",
            {"volume": "v-1", "offset_bytes": "4096"},
        )


def test_a_status_that_we_never_send_is_an_internal_error() -> None:
    unused = set(Status) - {cls.meaning.status for cls in CLASSES}
    for status in unused:
        assert type(from_wire(status, "X", "x", {})) is InternalError
