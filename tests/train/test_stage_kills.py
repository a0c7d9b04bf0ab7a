"""Ten times SIGKILL, of a run that adapts what another has learnt, and of one that learns from rewards.

Of training from random weights: test_kills.py; from pairs: test_preference_run.py.
"""

import pathlib

import numpy as np
import pytest
from helpers import grpo_config
from helpers.runs import CONFIG, assert_same_state, finish, kill_and_finish

from ualm_jax.train.metrics import read_metrics

REWARD = pathlib.Path(__file__).parents[1] / "helpers" / "rewards.py"
ADAPT_STEPS, GRPO_STEPS = 40, 24


@pytest.fixture(scope="module")
def stages(dataset, tmp_path_factory):
    """Command words of both, and a folder with the uninterrupted runs `adapt` and `grpo`."""
    folder = tmp_path_factory.mktemp("stages")
    sizes = grpo_config.get_config().model.decoder
    small = [f"--config.model.decoder.{name}={sizes[name]}" for name in ("num_layers", "width", "mlp_dim")]
    common = ["train", "--config", str(CONFIG), *small, f"--config.data.directory={dataset}"]
    finish(*common, "--workdir", str(folder / "start"), "--config.train.steps=2", "--config.train.save_interval=2")
    (folder / "captions.txt").write_text("".join(f"sound {index}\n" for index in range(5)))
    begin = f"--config.train.init_from={folder / 'start'}"
    words = {
        "adapt": [*common, begin, f"--config.train.steps={ADAPT_STEPS}", "--config.train.save_interval=3"],
        "grpo": [
            *("train", "--config", grpo_config.__file__, begin, f"--config.train.steps={GRPO_STEPS}"),
            f"--config.grpo.prompts={folder / 'captions.txt'}",
            f"--config.grpo.scorer={REWARD}:likes_low",
            "--config.train.save_interval=2",
            "--config.grpo.updates=2",
        ],
    }
    for name, stage in words.items():
        finish(*stage, "--workdir", str(folder / name))
    return folder, words


@pytest.mark.slow
@pytest.mark.parametrize("number", range(10))
@pytest.mark.parametrize(("name", "steps"), [("adapt", ADAPT_STEPS), ("grpo", GRPO_STEPS)])
def test_a_stage_killed_anywhere_ends_as_the_uninterrupted_one(name, steps, number, stages, tmp_path):
    folder, words = stages
    kill_and_finish(words[name], tmp_path, number, steps)
    assert_same_state(tmp_path, folder / name, steps)
    if name == "grpo":
        rewards = [[row["reward"] for row in read_metrics(at / "metrics.jsonl")] for at in (tmp_path, folder / name)]
        assert rewards[0] == rewards[1] and np.std(rewards[0]) > 0
