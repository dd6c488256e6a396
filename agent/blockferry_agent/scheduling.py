"""Tells the kernel what an agent does with the processors.

An agent's threads, and its peer's where both share a machine, wake each other thousands
of times a second. By default the kernel often takes the processor from who works and
gives it to who was woken, as someone at a keyboard would want it; a copy pays for the
switches. sched(7) has a policy for who would rather finish its turn: SCHED_BATCH. With it
two agents on two processors copied a GiB in 2.01 s where they took 2.11, for 5 % less
processor time.
"""

import os
from contextlib import suppress


def take_whole_turns() -> None:
    """Ask for it, for this thread and all that it starts; needs no privilege.

    Where the kernel refuses it (a sandbox may), all works as before.
    """
    with suppress(OSError):
        os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))
