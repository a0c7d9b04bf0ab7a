"""Whole runs that learn from rewards of their own answers."""

import dataclasses
import json
import math
import pathlib

import jax
import numpy as np
import pytest
from helpers import grpo_config, run_config
from helpers.runs import saved, stopped_at

from ualm_jax.errors import UserError
from ualm_jax.mapping import from_mapping
from ualm_jax.train.config import RunConfig
from ualm_jax.train.metrics import read_metrics
from ualm_jax.train.stages.run import train

REWARDS = pathlib.Path(__file__).parents[1] / "helpers" / "rewards.py"


pytestmark = pytest.mark.usefixtures("as_many_devices_as_the_mesh_has")


@pytest.fixture(scope="module")
def started(dataset, tmp_path_factory):
    """Folder with `captions.txt` and a run `start` of one step, which has tokenizer and codec."""
    folder = tmp_path_factory.mktemp("online")
    values, like = run_config.get_config(), grpo_config.get_config()
    values.model = like.model
    values.mesh = like.mesh
    values.data.directory = str(dataset)
    values.train.update(steps=1, save_interval=1)
    train(from_mapping(RunConfig, values.to_dict()), folder / "start")
    (folder / "captions.txt").write_text("".join(f"sound {index}\n" for index in range(5)))
    return folder


def config(started, reward="likes_low", **groups) -> RunConfig:
    values = grpo_config.get_config()
    values.train.init_from = str(started / "start")
    values.grpo.update(prompts=str(started / "captions.txt"), scorer=f"{REWARDS}:{reward}")
    for group, fields in groups.items():
        values[group].update(fields)
    return from_mapping(RunConfig, values.to_dict())


@pytest.fixture(scope="module")
def learnt(started):
    """24 steps that reward some bytes."""
    train(config(started, train=dict(steps=24, save_interval=10)), started / "learnt")
    return started / "learnt"


def test_rewards_rise(learnt):
    rows = read_metrics(learnt / "metrics.jsonl")
    rewards = [row["reward"] for row in rows]
    assert len(rewards) == 24 and np.mean(rewards[-5:]) > np.mean(rewards[:5]) + 0.3, rewards
    assert rows[0]["kl"] == 0 and rows[-1]["kl"] > 0.01
    assert {"reward_std", "equal_groups", "unscored", "length", "cut", "clipped", "log_prob", "kl/stream_0"} <= set(
        rows[0]
    )


def test_a_run_that_was_stopped_makes_the_same_answers_and_ends_bit_for_bit_as_one_that_was_not(started, learnt):
    stopped_at(20, learnt, started / "resumed")
    train(config(started, train=dict(steps=24, save_interval=10)), started / "resumed")
    ours, theirs = saved(started / "resumed", 24), saved(learnt, 24)
    assert ours.keys() == theirs.keys()
    for name in ours:
        np.testing.assert_array_equal(ours[name], theirs[name], err_msg=name)
    wanted = {row["step"]: row["reward"] for row in read_metrics(learnt / "metrics.jsonl")}
    assert {row["step"]: row["reward"] for row in read_metrics(started / "resumed" / "metrics.jsonl")} == wanted


def test_equal_rewards_move_nothing(started):
    train(config(started, "indifferent", train=dict(steps=2), optimizer=dict(weight_decay=0.0)), started / "equal")
    begun, ended = saved(started / "start", 1), saved(started / "equal", 2)
    for name in begun:
        if name.startswith("['params']"):
            np.testing.assert_array_equal(begun[name], ended[name], err_msg=name)
    assert [row["equal_groups"] for row in read_metrics(started / "equal" / "metrics.jsonl")] == [1, 1]


def test_answers_without_a_reward_are_counted_and_the_others_go_on(started):
    train(config(started, "moody", grpo=dict(updates=2), train=dict(steps=3)), started / "moody")
    rows = read_metrics(started / "moody" / "metrics.jsonl")
    assert any(0 < row["unscored"] < 1 for row in rows) and all(math.isfinite(row["reward"]) for row in rows)
    assert any(row["clipped"] > 0 for row in rows), "the second update of a step has left what was drawn"


@pytest.mark.slow
def test_microbatches_and_devices_change_nothing_but_rounding(started):
    if len(jax.devices()) < 2:
        pytest.skip("one device")
    sounds = dict(modality="audio", seconds=0.1, scorer="helpers.rewards_of_sounds:loudness", group_size=4)
    whole = config(started, grpo=sounds, train=dict(steps=1), data=dict(seq_len=48))
    train(whole, started / "whole")
    parts = dataclasses.replace(whole, train=dataclasses.replace(whole.train, grad_accum_steps=2))
    parts = dataclasses.replace(parts, mesh=dataclasses.replace(parts.mesh, data=2))
    train(parts, started / "parts")
    ours, theirs = saved(started / "whole", 1), saved(started / "parts", 1)
    for name in ours:
        if "mu" in name:  # the moments are the gradient
            np.testing.assert_allclose(ours[name], theirs[name], rtol=1e-3, atol=1e-6, err_msg=name)
    one, other = (read_metrics(started / name / "metrics.jsonl")[0] for name in ("whole", "parts"))
    assert one["reward"] == other["reward"] and one["equal_groups"] < 1 and one["length"] == 5


@pytest.mark.parametrize(
    "groups, sentence",
    [
        (dict(grpo=dict(prompts="none.txt")), "grpo.prompts: there is no file none.txt"),
        (dict(grpo=dict(scorer="none")), "There is no scorer 'none'"),
        (dict(data=dict(seq_len=8)), "grpo.prompts: 00000: The prompt takes"),
        (dict(train=dict(init_from=None)), "train.init_from is missing"),
        (
            dict(data=dict(directory="data")),
            "data.directory is 'data', but train.objective = 'grpo' reads grpo.prompts",
        ),
        (dict(eval=dict(directory="data")), "eval.directory is data, but"),
    ],
    ids=str,
)
def test_what_can_not_be_is_refused_before_anything_is_written(started, tmp_path, groups, sentence):
    with pytest.raises(UserError) as refused:
        train(config(started, **groups), tmp_path / "run")
    assert sentence in str(refused.value) and not (tmp_path / "run").exists()


def test_a_reward_that_never_comes_stops_the_run_with_its_reason(started):
    with pytest.raises(UserError, match=r"step 1: none of 12 answers has a reward \(the scorer failed .*no ears"):
        train(config(started, "never"), started / "never")


def test_other_prompts_or_another_start_are_another_run(started, learnt, tmp_path):
    (tmp_path / "captions.txt").write_text("another sound\n")
    with pytest.raises(UserError, match="was made with config.prompts"):
        train(config(started, train=dict(steps=41), grpo=dict(prompts=str(tmp_path / "captions.txt"))), learnt)
    with pytest.raises(UserError, match="was made with config.reference.weights"):
        train(config(started, train=dict(steps=41, init_from=str(learnt))), learnt)
    assert json.loads((learnt / "config.json").read_text())["train"]["steps"] == 24
