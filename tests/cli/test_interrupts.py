"""Ctrl-C ends a verb at once, in one line, whatever it is at: nothing is printed twice, nobody is left behind."""

import os
import signal
import subprocess
import sys
import time

import pytest

PROGRAM = """
import hashlib, os, signal, sys, time
from ualm_jax.cli import interrupts, main
from ualm_jax.parallel.workers import worker_pool
interrupts.GRACE = 0.5
{verb}
if __name__ == "__main__":
    import helpers.failing_verb
    helpers.failing_verb.function = verb
    main.VERBS["fail"] = ("helpers.failing_verb", "fails")
    sys.argv = ["ualm", "fail"]
    sys.exit(main.main())
"""

SLEEPING = """
def verb():
    print("ready", flush=True)
    time.sleep(60)
"""

WORKERS = """
def start(): pass
def work(_): time.sleep(60)
def verb():
    with worker_pool(2, start) as pool:
        futures = [pool.submit(work, number) for number in range(4)]
        print("ready", flush=True)
        [future.result() for future in futures]
"""

# Python is not asked before it returns, as while XLA compiles.
UNINTERRUPTIBLE = """
def verb():
    print("ready", flush=True)
    hashlib.pbkdf2_hmac("sha256", b"", b"", 1 << 30)
"""

# As Python does with what a destructor or JAX's callback of the garbage collector raises.
SWALLOWING = """
class Held:
    def __del__(self): time.sleep(60)
def verb():
    print("ready", flush=True)
    Held()
    time.sleep(60)
"""

STUCK = """
def verb():
    print("ready", flush=True)
    try: time.sleep(60)
    finally: time.sleep(60)
"""


def interrupted(tmp_path, verb: str, times: int = 1) -> tuple[subprocess.CompletedProcess, float]:
    """Ctrl-C for the whole group, as a terminal sends it, when the program is ready; what became of it, how soon."""
    path = tmp_path / "program.py"
    path.write_text(PROGRAM.format(verb=verb))
    with subprocess.Popen(
        [sys.executable, path], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    ) as process:
        assert process.stdout.readline() == "ready\n"
        start = time.monotonic()
        for _ in range(times):
            time.sleep(0.1)
            os.killpg(process.pid, signal.SIGINT)
        out, err = process.communicate(timeout=30)
        seconds = time.monotonic() - start
    with pytest.raises(ProcessLookupError):  # nobody of the group is left
        for _ in range(100):
            os.killpg(process.pid, 0)
            time.sleep(0.05)
    return subprocess.CompletedProcess([], process.returncode, out, err), seconds


@pytest.mark.parametrize("verb", [SLEEPING, WORKERS, UNINTERRUPTIBLE, SWALLOWING, STUCK])
def test_ctrl_c_is_one_line_and_prompt(tmp_path, verb):
    done, seconds = interrupted(tmp_path, verb)
    assert done.returncode == 130, done
    assert done.stderr.count("\n") == 1 and "stopped by Ctrl-C" in done.stderr, done.stderr
    assert seconds < 10, seconds


def test_a_second_ctrl_c_does_not_wait(tmp_path):
    done, seconds = interrupted(tmp_path, "interrupts.GRACE = 60\n" + STUCK, times=2)
    assert done.returncode == 130 and done.stderr.count("\n") == 1 and seconds < 10


def test_a_verb_that_answers_ctrl_c_itself_is_left_alone(tmp_path):
    verb = """
def verb():
    asked = []
    signal.signal(signal.SIGINT, lambda *_: asked.append(1))
    print("ready", flush=True)
    while not asked: time.sleep(0.05)
    time.sleep(3 * interrupts.GRACE)
    print("saved")
"""
    done, _ = interrupted(tmp_path, verb)
    assert (done.returncode, done.stdout, done.stderr) == (0, "saved\n", "")


def test_the_end_of_a_pipe_is_quiet(tmp_path):
    path = tmp_path / "program.py"
    path.write_text(PROGRAM.format(verb="def verb():\n    for _ in range(100_000): print('line')\n"))
    command = f"{sys.executable} {path} | head -1; echo ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, timeout=60)
    assert (done.stdout, done.stderr) == ("line\n141\n", "")
