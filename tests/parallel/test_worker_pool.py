"""Worker processes: their end is noticed at whatever moment it comes."""

import os
import signal
import sys
import time
from concurrent.futures.process import BrokenProcessPool

import pytest

from ualm_jax.parallel.workers import worker_pool


def _nothing():
    pass


def _double(number):
    return 2 * number


def _die():
    os.kill(os.getpid(), signal.SIGKILL)


def _die_while_sending():
    """The queue of results belongs to the function that called this one: the length of a result, and no result."""
    frame = sys._getframe()
    while "result_queue" not in frame.f_locals:
        frame = frame.f_back
    frame.f_locals["result_queue"]._writer._send(b"\0\0\x10\0" + b"cut")
    _die()


@pytest.mark.parametrize("end", [_die, _die_while_sending])
def test_a_killed_worker_ends_all_that_waits(end):
    pool = worker_pool(2, _nothing)
    assert pool.submit(_double, 21).result(timeout=60) == 42
    sleeping, ended = pool.submit(time.sleep, 600), pool.submit(end)
    for each in (ended, sleeping):
        assert isinstance(each.exception(timeout=60), BrokenProcessPool)
    pool.shutdown()
