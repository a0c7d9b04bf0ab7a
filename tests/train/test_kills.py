"""Ten times SIGKILL, wherever it hits: in start-up, in a step, in a checkpoint, with and without workers.

A single kill is in the default suite: test_run.py.
"""

import random
import signal
import time

import numpy as np
import pytest
from helpers.runs import checkpoint_steps, command, finish, losses, saved, start

STEPS = 90
# So often that one is nearly always being written, in the background.
OFTEN = [f"--config.train.steps={STEPS}", "--config.train.save_interval=3"]


@pytest.fixture(scope="module")
def uninterrupted(dataset, tmp_path_factory):  # noqa: F811
    workdir = tmp_path_factory.mktemp("uninterrupted")
    finish(*command(dataset, workdir, *OFTEN))
    return workdir


@pytest.mark.slow
@pytest.mark.parametrize("number", range(10))
def test_a_run_killed_anywhere_ends_as_the_uninterrupted_one(number, dataset, uninterrupted, tmp_path):  # noqa: F811
    chance = random.Random(number)
    process = start(*command(dataset, tmp_path, *OFTEN, f"--config.data.num_workers={number % 2}"))
    after = chance.randrange(1, STEPS * 3 // 4) if number else None  # the first dies before its first step
    for line in process.stdout:
        if after is None or line.startswith(f"step {after}/"):
            break
    time.sleep(chance.uniform(0, 0.3))
    process.kill()
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    whole = checkpoint_steps(tmp_path)
    output = finish(*command(dataset, tmp_path, *OFTEN))
    assert (f"resumed from step {whole[-1]}" if whole else "parameters on 1 devices") in output
    ours, theirs = saved(tmp_path, STEPS), saved(uninterrupted, STEPS)
    assert ours.keys() == theirs.keys()
    for name in ours:
        np.testing.assert_array_equal(ours[name], theirs[name], err_msg=name)
    assert losses(tmp_path) == losses(uninterrupted)
