# SPDX-License-Identifier: GPL-2.0
"""One run at a time: another one would take away modules from under guests, and overwrite
what they left."""
import contextlib
import fcntl
import os
import sys

# whose turn it is, for what a run starts
MARK = "HARNESS_RUN"


@contextlib.contextmanager
def alone(top):
    """Waits until no other run is at work in the repository TOP."""
    if os.environ.get(MARK) == str(top):
        yield
        return
    (top / "build").mkdir(exist_ok=True)
    with open(top / "build/.run-lock", "w", encoding="ascii") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print("harness: another run is at work here: waiting for it", file=sys.stderr, flush=True)
            fcntl.flock(file, fcntl.LOCK_EX)
        os.environ[MARK] = str(top)
        try:
            yield
        finally:
            del os.environ[MARK]
