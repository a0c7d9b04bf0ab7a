"""Processes that share a job: one that stops, or is gone, ends the waits of the others with a sentence."""

import os
import signal
import socket
import subprocess
import sys
import threading
import time

import pytest

from ualm_jax.data.prepare import peers
from ualm_jax.data.prepare.peers import Peers
from ualm_jax.errors import UserError


@pytest.fixture(autouse=True)
def impatient(monkeypatch):
    monkeypatch.setattr(peers, "_BEAT", 0.05)
    monkeypatch.setattr(peers, "_LOOK_EVERY", 0.02)
    monkeypatch.setattr(peers, "_SILENCE", 1.0)


def test_what_one_publishes_all_read(tmp_path):
    found = []

    def other():
        with Peers(tmp_path / "place", "run", 1, 2) as second:
            found.append(second.read("pending", writer=0))

    thread = threading.Thread(target=other)
    thread.start()
    with Peers(tmp_path / "place", "run", 0, 2) as first:
        first.publish("pending", [1, 2])
        thread.join()
    assert found == [[1, 2]] and not (tmp_path / "place").exists()


def test_a_process_that_is_alone_leaves_no_trace(tmp_path):
    with Peers(tmp_path / "place", "run", 0, 1) as alone:
        alone.publish("pending", [3])
        assert alone.read("pending", writer=0) == [3]
    assert not list(tmp_path.iterdir())


def test_a_wait_lasts_as_long_as_the_other_lives(tmp_path):
    begun = time.monotonic()
    with Peers(tmp_path, "run", 1, 2), Peers(tmp_path, "run", 0, 2) as first:
        first.wait(lambda: time.monotonic() - begun > 2.5, range(2))


def test_why_another_process_stopped_is_told(tmp_path):
    with pytest.raises(UserError, match="codec: damaged"), Peers(tmp_path, "run", 1, 2):
        raise UserError("codec: damaged")
    with pytest.raises(UserError, match="process 1 of 2 has stopped: codec: damaged"):
        with Peers(tmp_path, "run", 0, 2) as first:
            first.wait(lambda: False, range(2))


def test_a_process_that_shows_no_life_is_named(tmp_path):
    with (
        Peers(tmp_path, "run", 2, 3),
        pytest.raises(UserError, match="process 1 of 3 has shown no sign of life for 1 s"),
    ):
        with Peers(tmp_path, "run", 0, 3) as first:
            first.wait(lambda: False, range(3))


def test_what_an_earlier_run_left_does_not_count(tmp_path):
    with pytest.raises(ValueError), Peers(tmp_path, "before", 1, 2):
        raise ValueError("old")
    with Peers(tmp_path, "now", 0, 2) as first, Peers(tmp_path, "now", 1, 2):
        until = time.monotonic() + 1.5
        first.wait(lambda: time.monotonic() > until, range(2))
    assert not list(tmp_path.glob("before*"))


@pytest.mark.slow
def test_a_killed_process_ends_the_others_with_a_sentence(sounds, parts, tmp_path):
    """And the same run by one process finishes what they have begun."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    program = (
        "import pathlib, sys\n"
        "from ualm_jax.data.prepare import peers\n"
        "from ualm_jax.errors import UserError\n"
        "from ualm_jax.parallel.startup import start\n"
        "from helpers.fake_sounds import encode_fake\n"
        "peers._SILENCE = 5.0\n"
        "sounds, parts, out, address, index = sys.argv[1:]\n"
        "start(distributed=f'{address},2,{index}', cpu_devices=1)\n"
        "print('begun', flush=True)\n"
        "try: encode_fake(*map(pathlib.Path, (sounds, parts, out)), seconds=0.1 if index == '0' else 1.0)\n"
        "except UserError as error: print(error, flush=True)\n"
        "import os; os._exit(0)\n"
    )
    command = [sys.executable, "-c", program, sounds.directory, parts, tmp_path / "out", address]
    both = [subprocess.Popen([*command, str(i)], stdout=subprocess.PIPE, text=True) for i in range(2)]
    assert both[1].stdout.readline() == "begun\n"
    while not list(tmp_path.glob("out.partial/progress/0*.json")):
        time.sleep(0.1)
    os.kill(both[1].pid, signal.SIGKILL)
    output = both[0].communicate(timeout=120)[0]
    assert "process 1 of 2 has shown no sign of life" in output
