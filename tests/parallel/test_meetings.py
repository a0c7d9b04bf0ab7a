"""Processes that wait for each other wait with an end, and say who did not come."""

import pathlib
import subprocess
import sys

from helpers.runs import free_address

SCRIPT = pathlib.Path(__file__).parents[1] / "helpers" / "waiting_process.py"


def begin(address: str, index: int) -> subprocess.Popen:
    words = [sys.executable, str(SCRIPT), address, str(index)]
    return subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def test_a_wait_for_a_process_that_never_comes_ends_with_a_sentence_that_names_it():
    address = free_address()
    first, second = (begin(address, index) for index in range(2))
    try:
        output = first.communicate(timeout=60)[0]
    finally:
        second.kill()
        told = second.communicate()[0]
    lines = output.splitlines()
    assert "5 0 1" in lines, output
    assert "process 1 of 2 has ended, or did not come within 1 s to: save; look at the output there." in lines, output
    assert "step: process 1 has 4, process 0 has 3; start again." in told.splitlines() and "codec:" not in told, told
    assert "step:" not in output, output
