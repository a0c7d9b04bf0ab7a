"""Two processes train as one, and what they save one process can read."""

import pathlib

import numpy as np
import pytest
from helpers import grpo_config
from helpers.runs import checkpoint_steps, command, finish, free_address, in_two_processes, losses, start

from ualm_jax.train.metrics import read_metrics

REWARD = pathlib.Path(__file__).parents[1] / "helpers" / "rewards.py"


@pytest.mark.slow
def test_two_processes_train_one_model(dataset, tmp_path):
    workdir = tmp_path / "two"
    arguments = ["--config.mesh.data=1", "--config.mesh.fsdp=2", "--config.train.steps=12"]
    in_two_processes(*command(dataset, workdir, *arguments))
    assert checkpoint_steps(workdir) == [10, 12]
    series = losses(workdir)
    assert sorted(series) == list(range(1, 13)) and series[12] < series[1]
    # The same command again finds the run finished and reads what both have written.
    outputs = in_two_processes(*command(dataset, workdir, *arguments))
    assert all("resumed from step 12" in output for output in outputs), "\n".join(outputs)


@pytest.mark.slow
def test_a_process_that_is_refused_ends_soon_and_says_why_also_where_both_are(dataset, tmp_path):
    missing = tmp_path / "missing"
    for refused in ([1], [0, 1]):
        address = free_address()
        data = [missing if index in refused else dataset for index in range(2)]
        words = [command(data[index], tmp_path / "run", f"--distributed={address},2,{index}") for index in range(2)]
        processes = [start(*words[index], "--config.mesh.fsdp=2") for index in range(2)]
        try:
            for index in refused:
                output = processes[index].communicate(timeout=90)[0]
                assert processes[index].returncode == 1 and str(missing) in output.splitlines()[-1], output
        finally:
            for process in processes:
                process.kill()
                process.communicate()


@pytest.mark.slow
def test_two_processes_learn_from_the_rewards_of_one(dataset, tmp_path):
    sizes = grpo_config.get_config().model.decoder
    small = [f"--config.model.decoder.{name}={sizes[name]}" for name in ("num_layers", "width", "mlp_dim")]
    one = ["--config.train.steps=1", "--config.train.save_interval=1"]
    finish(*command(dataset, tmp_path / "start", *small, *one))
    (tmp_path / "captions.txt").write_text("".join(f"sound {index}\n" for index in range(5)))
    words = ["train", "--config", grpo_config.__file__, f"--config.train.init_from={tmp_path / 'start'}"]
    words += [f"--config.grpo.prompts={tmp_path / 'captions.txt'}", f"--config.grpo.scorer={REWARD}:likes_low"]
    words += ["--config.train.steps=2", "--config.train.save_interval=1"]
    finish(*words, "--workdir", str(tmp_path / "alone"))
    in_two_processes(*words, "--workdir", str(tmp_path / "both"), "--config.mesh.fsdp=2")
    alone, both = (read_metrics(tmp_path / name / "metrics.jsonl") for name in ("alone", "both"))
    assert [row["reward"] for row in both] == [row["reward"] for row in alone]
    assert np.std([row["reward"] for row in both]) > 0
    for name in ("loss", "grad_norm", "update_norm", "param_norm"):
        np.testing.assert_allclose([row[name] for row in both], [row[name] for row in alone], rtol=1e-4, err_msg=name)
